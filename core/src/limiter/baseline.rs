//! Step 2: what each unit costs, which units push, and the concurrency that was healthy.
//!
//! Concurrency that is read inside an overload is already inflated by queueing, so a limit starts from
//! what was seen at the last healthy ticks, of which a short history is kept (L4).

/// What one shard saw of one unit in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests that began.
    pub admitted: u64,
    /// Requests that were refused by this limiter.
    pub refused: u64,
    /// Requests in flight at the end of the tick.
    pub in_flight: u32,
    /// Of these, the ones on borrowed slots.
    pub borrowed: u32,
    /// Time that requests spent in flight, added up, in nanoseconds.
    pub in_flight_ns: u64,
    /// CPU time that the application says it has spent on requests, in nanoseconds; 0 if it says nothing.
    pub cpu_ns: u64,
    /// Answers in which the application said how full it is.
    pub load_reports: u64,
    /// What they said, in thousandths, added up.
    pub load_permille: u64,
}

impl Usage {
    /// Requests in flight on slots of the shard's own.
    pub fn held(&self) -> u32 {
        self.in_flight.saturating_sub(self.borrowed)
    }
}

/// Slots that each shard could use: those it uses, and for each request that it had to refuse as much of a slot as a
/// request of the unit has. (Not the refusals themselves: one is a count a tick, and would have held a slot for a part of
/// it. Nor what a request has on that shard alone: one that was shut would take its refusals for slots, and with them
/// nearly all there are from the others.)
pub fn demands(shards: &[Usage]) -> Vec<f64> {
    let sum = |read: fn(&Usage) -> u64| shards.iter().map(read).sum::<u64>();
    let at_least = |refused: u64| if refused > 0 { 1.0 } else { 0.0 };
    let in_flight = sum(|usage| u64::from(usage.in_flight)) as f64;
    let held = in_flight.max(at_least(sum(|usage| usage.refused)));
    let by_request = held / sum(|usage| usage.admitted).max(1) as f64;
    let shards = shards.iter();
    let demand = |usage: &Usage| {
        let asked = f64::from(usage.in_flight) + usage.refused as f64 * by_request;
        asked.max(at_least(usage.refused))
    };
    shards.map(demand).collect()
}

/// Ticks of history: 6.4 s at a tick of 100 ms, longer than any trigger.
const HISTORY: usize = 64;
/// Of these, as many as make one tick's noise small.
const HEALTHY_TICKS: usize = 10;
/// A start value leaves this much above what was healthy.
const HEADROOM: f64 = 1.1;
/// The share of the cost that the heavy units make up.
pub(super) const HEAVY: f64 = 0.8;
/// By how much the rate of a rising unit exceeds that of the last minutes.
const RISING: f64 = 1.3;

/// What is known of one unit.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Offered requests per second, averaged over 1 s, 10 s and 5 min.
    rate_1s: f64,
    rate_10s: f64,
    rate_5min: f64,
    /// Requests in flight, averaged over 1 s.
    time: f64,
    /// CPUs that it keeps busy, averaged over 1 s, if the application says so.
    cpu: f64,
    /// Slots in demand at the last tick.
    demand: f64,
    in_flight: f64,
    /// Concurrency of the last healthy ticks, the newest at `next - 1`.
    healthy: [f32; HISTORY],
    next: usize,
    filled: usize,
    /// The same of the last tick, if that was a healthy one: it counts once the next one is healthy, too. What
    /// overloads begins in the middle of a tick.
    candidate: Option<f32>,
    floor: f64,
    ticks: u32,
}

impl Baseline {
    /// Of a unit that was never seen; a limit of it starts at no less than `floor`.
    pub fn new(floor: u32) -> Baseline {
        Baseline {
            rate_1s: 0.0,
            rate_10s: 0.0,
            rate_5min: 0.0,
            time: 0.0,
            cpu: 0.0,
            demand: 0.0,
            in_flight: 0.0,
            healthy: [0.0; HISTORY],
            next: 0,
            filled: 0,
            candidate: None,
            floor: f64::from(floor),
            ticks: 0,
        }
    }

    /// Takes what the shards saw in a tick of `tick_s` seconds.
    pub fn record(&mut self, shards: &[Usage], tick_s: f64, is_healthy: bool) {
        let sum = |f: fn(&Usage) -> u64| shards.iter().map(f).sum::<u64>() as f64;
        let offered = (sum(|u| u.admitted) + sum(|u| u.refused)) / tick_s;
        let concurrency = sum(|u| u.in_flight_ns) / (tick_s * 1e9);
        self.ticks = self.ticks.saturating_add(1);
        let average = |old: f64, new: f64, window_s: f64, ticks: u32| {
            // The plain mean until the window is full, so that a new unit is not taken for a rising one.
            let weight = (tick_s / window_s).max(1.0 / f64::from(ticks));
            old + (new - old) * weight.min(1.0)
        };
        self.rate_1s = average(self.rate_1s, offered, 1.0, self.ticks);
        self.rate_5min = average(self.rate_5min, offered, 300.0, self.ticks);
        self.rate_10s = average(self.rate_10s, offered, 10.0, self.ticks);
        self.time = average(self.time, concurrency, 1.0, self.ticks);
        let cpu = sum(|u| u.cpu_ns) / (tick_s * 1e9);
        self.cpu = average(self.cpu, cpu, 1.0, self.ticks);
        self.demand = demands(shards).iter().sum();
        self.in_flight = sum(|u| u64::from(u.in_flight));
        self.judge(is_healthy.then_some(concurrency as f32));
    }

    fn judge(&mut self, healthy: Option<f32>) {
        let before = std::mem::replace(&mut self.candidate, healthy);
        if let (Some(before), Some(_), Some(slot)) =
            (before, healthy, self.healthy.get_mut(self.next))
        {
            *slot = before;
            self.next = (self.next + 1) % HISTORY;
            self.filled = (self.filled + 1).min(HISTORY);
        }
    }

    /// Concurrency while the machine was well, with some headroom.
    pub fn start(&self) -> f64 {
        let newest = (1..=self.filled.min(HEALTHY_TICKS))
            .filter_map(|back| self.healthy.get((self.next + HISTORY - back) % HISTORY));
        let (sum, count) = newest.fold((0.0, 0u32), |(sum, n), c| (sum + f64::from(*c), n + 1));
        let mean = if count == 0 {
            0.0
        } else {
            sum / f64::from(count)
        };
        (mean * HEADROOM).max(self.floor)
    }

    /// Requests offered per second, over the last second.
    pub fn rate_1s(&self) -> f64 {
        self.rate_1s
    }

    /// The same over ten seconds.
    pub fn rate_10s(&self) -> f64 {
        self.rate_10s
    }

    /// The same over five minutes.
    pub fn rate_5min(&self) -> f64 {
        self.rate_5min
    }

    /// What it takes of what is short.
    pub fn cost(&self, of: Cost) -> f64 {
        match of {
            Cost::Cpu { .. } if self.cpu > 0.0 => self.cpu,
            Cost::Cpu { of_time } => of_time * self.time,
            Cost::Time => self.time,
        }
    }

    /// CPUs that it keeps busy, if the application says so.
    pub fn cpu(&self) -> f64 {
        self.cpu
    }

    /// Requests in flight at the last tick.
    pub fn in_flight(&self) -> f64 {
        self.in_flight
    }

    /// Slots in demand at the last tick.
    pub fn demand(&self) -> f64 {
        self.demand
    }

    fn is_rising(&self) -> bool {
        self.rate_1s >= RISING * self.rate_5min && self.rate_1s > 0.0
    }
}

/// What a unit's cost is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cost {
    /// Requests in flight: time, which everything that is short makes longer.
    #[default]
    Time,
    /// CPU time: where that is what is short, who waits for something else is in nobody's way.
    Cpu {
        /// Of units of which the application says nothing: this part of their time in flight, as the others have.
        of_time: f64,
    },
}

impl Cost {
    /// CPU time, where the application says it of any of the units.
    pub fn of_cpu(units: &[Baseline]) -> Cost {
        let told = units.iter().filter(|unit| unit.cpu > 0.0);
        let (cpu, time) = told.fold((0.0, 0.0), |(cpu, time), unit| {
            (cpu + unit.cpu, time + unit.time)
        });
        match cpu > 0.0 && time > 0.0 {
            true => Cost::Cpu {
                of_time: cpu / time,
            },
            false => Cost::Time,
        }
    }
}

/// The units whose limits help: the heavy ones that rise, or the heavy ones if none of them does. Heavy
/// is the smallest set that makes up 80 % of the cost.
pub fn victims(units: &[Baseline], of: Cost) -> Vec<usize> {
    let mut by_cost: Vec<(usize, &Baseline)> = units
        .iter()
        .enumerate()
        .filter(|(_, unit)| unit.cost(of) > 0.0)
        .collect();
    by_cost.sort_by(|a, b| b.1.cost(of).total_cmp(&a.1.cost(of)).then(a.0.cmp(&b.0)));
    let total: f64 = units.iter().map(|unit| unit.cost(of)).sum();
    let mut sum = 0.0;
    let heavy: Vec<(usize, &Baseline)> = by_cost
        .into_iter()
        .take_while(|(_, unit)| {
            let before = sum;
            sum += unit.cost(of);
            before < HEAVY * total
        })
        .collect();
    let rising: Vec<usize> = heavy
        .iter()
        .filter(|(_, unit)| unit.is_rising())
        .map(|(k, _)| *k)
        .collect();
    match rising.is_empty() {
        true => heavy.into_iter().map(|(k, _)| k).collect(),
        false => rising,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: f64 = 0.1;

    fn usage(rate: u64, in_flight: u32) -> Usage {
        Usage {
            admitted: rate / 10,
            refused: 0,
            in_flight,
            in_flight_ns: u64::from(in_flight) * 100_000_000,
            cpu_ns: rate * 10_000,
            ..Usage::default()
        }
    }

    fn baseline(ticks: u32, usage: Usage) -> Baseline {
        let mut baseline = Baseline::new(1);
        (0..ticks).for_each(|_| baseline.record(&[usage], TICK, true));
        baseline
    }

    /// Goal: a shard that lets nobody in asks for what its requests would hold, and not for a slot a refusal: else it had
    /// nearly all of them at the next tick, and the others none (L6). Method: two shards with a slot for every tenth
    /// request, and one that is shut; then all shut; then none refused.
    #[test]
    fn refusals_are_no_slots() {
        let shard = |in_flight, admitted, refused| Usage {
            in_flight,
            admitted,
            refused,
            ..Usage::default()
        };
        let shut = demands(&[shard(9, 90, 10), shard(1, 10, 0), shard(0, 0, 30)]);
        assert_eq!(shut, [10.0, 1.0, 3.0]);
        assert_eq!(demands(&[shard(0, 0, 30), shard(0, 0, 10)]), [30.0, 10.0]);
        assert_eq!(demands(&[shard(0, 50, 1), shard(0, 0, 0)]), [1.0, 0.0]);
        assert_eq!(demands(&[shard(7, 0, 0)]), [7.0]);
    }

    /// Goal: a limit starts from the concurrency before the overload (L4). Method: ten healthy ticks, then
    /// ticks of an overload with twenty times the concurrency.
    #[test]
    fn start_is_what_was_healthy() {
        let mut baseline = baseline(100, usage(1000, 10));
        for _ in 0..50 {
            baseline.record(&[usage(1000, 200)], TICK, false);
        }
        assert!(
            (baseline.start() - 11.0).abs() < 0.01,
            "{}",
            baseline.start()
        );
        assert_eq!(Baseline::new(4).start(), 4.0);
    }

    /// Goal: a surge that begins in the middle of a healthy tick is not taken for healthy (L4). Method: such a tick,
    /// with fifty times the concurrency, before those of the overload.
    #[test]
    fn surges_are_not_taken_for_healthy() {
        let mut baseline = baseline(100, usage(1000, 10));
        baseline.record(&[usage(5000, 500)], TICK, true);
        baseline.record(&[usage(10_000, 1000)], TICK, false);
        assert!((baseline.start() - 11.0).abs() < 0.01);
    }

    /// Goal: only what pushes is limited. Method: a heavy steady unit, a heavy rising one and a light one,
    /// then without the rising one.
    #[test]
    fn victims_are_heavy_and_rising() {
        let steady = baseline(3000, usage(1000, 1));
        let light = baseline(3000, usage(10, 1));
        let mut rising = baseline(3000, usage(100, 1));
        for _ in 0..10 {
            rising.record(&[usage(2000, 1)], TICK, false);
        }
        let units = [steady.clone(), rising, light.clone()];
        assert_eq!(victims(&units, Cost::of_cpu(&units)), [1]);
        let units = [light, steady];
        assert_eq!(victims(&units, Cost::of_cpu(&units)), [1]);
        assert_eq!(victims(&[Baseline::new(1)], Cost::Time), [0; 0]);
    }

    /// Goal: where the application says what its CPU time goes to, that is the cost, and who says nothing is taken for
    /// as busy as the others (L4). Method: one that waits, one that computes, and both without a word.
    #[test]
    fn cpu_time_is_what_the_application_says() {
        let unit = |in_flight, cpu_ns| {
            let usage = usage(100, in_flight);
            baseline(20, Usage { cpu_ns, ..usage })
        };
        let (waits, computes) = (unit(90, 1_000_000), unit(10, 99_000_000));
        let units = [waits.clone(), computes.clone()];
        assert_eq!(victims(&units, Cost::of_cpu(&units)), [1]);
        assert_eq!(victims(&units, Cost::Time), [0]);
        let units = [waits, computes, unit(50, 0)];
        // A CPU for 100 in flight.
        let silent = units[2].cost(Cost::of_cpu(&units));
        assert!((silent - 0.5).abs() < 0.01, "{silent}");
        let silent = [unit(90, 0), unit(10, 0)];
        assert_eq!(Cost::of_cpu(&silent), Cost::Time);
    }

    /// Goal: a unit that was never seen before is not taken for a rising one. Method: its first tick.
    #[test]
    fn new_unit_does_not_rise() {
        assert!(!baseline(1, usage(1000, 1)).is_rising());
    }
}
