//! A machine with an application on it, as a fluid: what the limiter is tried on.

use tidegate_core::limiter::{
    Decided, Limiter, Policy, Priority,
    baseline::Usage,
    decision::{Share, spare},
    watermark::{Phase, Sample, Signal},
};

use super::Random;

/// Seconds of a tick of the limiter, and of a step of the machine.
pub const TICK: f64 = 0.1;
pub const STEP: f64 = 0.005;
/// What a caller waits for; an answer that comes later is worth nothing.
pub const DEADLINE: f64 = 1.0;

/// A kind of request.
#[derive(Clone, Debug)]
pub struct Unit {
    pub priority: Priority,
    /// Requests per second at 1×.
    pub rate: f64,
    /// CPU seconds, and seconds of waiting for something else.
    pub cpu: f64,
    pub wait: f64,
    /// How its callers are spread over the shards; sums to 1.
    pub spread: Vec<f64>,
}

/// What became of a unit's requests over a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub offered: f64,
    pub good: f64,
    pub late: f64,
}

/// The machine: processor sharing on `cores`, as a fluid.
pub struct Machine {
    pub cores: f64,
    /// Of these, those that somebody else computes on.
    pub stolen: f64,
    /// Memory in use, of what there is, if that is measured.
    pub memory: Option<f64>,
    /// Whether the application says what CPU time its answers have taken.
    pub tells_cost: bool,
    pub units: Vec<Unit>,
    /// In flight, by unit and shard.
    pub in_flight: Vec<Vec<f64>>,
    pub limits: Vec<Option<(u32, Vec<Share>)>>,
    pub limiter: Option<Limiter>,
    pub usage: Vec<Vec<Usage>>,
    pub busy: f64,
    /// How much longer computing takes than it would alone.
    pub slow: f64,
    pub waited: f64,
    pub outcome: Vec<Outcome>,
    pub random: Random,
    /// The watermark of each tick.
    pub watermarks: Vec<f64>,
    pub phase: Phase,
    /// Looks at every tick of the limiter.
    pub witness: Option<Witness>,
}

/// What a tick was given, what was decided, and by whom.
pub type Witness = Box<dyn FnMut(&Sample, &[(Priority, Vec<Usage>)], &Decided, &Limiter)>;

impl Machine {
    pub fn new(cores: f64, units: Vec<Unit>, limited: bool, seed: u64) -> Machine {
        let shards = units[0].spread.len();
        Machine {
            cores,
            stolen: 0.0,
            memory: None,
            tells_cost: false,
            in_flight: vec![vec![0.0; shards]; units.len()],
            limits: vec![None; units.len()],
            limiter: limited.then(|| Limiter::new(Policy::default())),
            usage: vec![vec![Usage::default(); shards]; units.len()],
            busy: 0.0,
            slow: 1.0,
            waited: 0.0,
            outcome: vec![Outcome::default(); units.len()],
            random: Random::new(seed),
            watermarks: Vec::new(),
            phase: Phase::Healthy,
            witness: None,
            units,
        }
    }

    /// Runs for `seconds` at `load` times the rates; what happened meanwhile.
    pub fn run(&mut self, seconds: f64, load: impl Fn(usize, f64) -> f64) -> Vec<Outcome> {
        self.outcome
            .iter_mut()
            .for_each(|o| *o = Outcome::default());
        let ticks = (seconds / TICK).round() as usize;
        let steps = (TICK / STEP).round() as usize;
        for tick in 0..ticks {
            for step in 0..steps {
                let now = tick as f64 * TICK + step as f64 * STEP;
                self.step(|unit| load(unit, now));
            }
            self.tick();
        }
        self.outcome.clone()
    }

    fn step(&mut self, load: impl Fn(usize) -> f64) {
        // Who computes, and how slowly: a request that is slowed down is computing for more of its time.
        let computing = |unit: &Unit, slow: f64| unit.cpu * slow / (unit.cpu * slow + unit.wait);
        let runnable: f64 = self
            .units
            .iter()
            .zip(&self.in_flight)
            .map(|(unit, n)| computing(unit, self.slow) * n.iter().sum::<f64>())
            .sum();
        let cores = self.cores - self.stolen;
        self.slow = (runnable / cores).max(1.0);
        let slow = self.slow;
        self.busy += (runnable.min(cores) + self.stolen) * STEP;
        self.waited += (1.0 - 1.0 / slow) * STEP;
        for (k, unit) in self.units.iter().enumerate() {
            let latency = unit.wait + unit.cpu * slow;
            // A fluid in a leaky tank: what is in it after a step, by its inflow, and the inflow that fills it.
            let stays = (-STEP / latency).exp();
            let level = |n: f64, inflow: f64| n * stays + inflow / STEP * latency * (1.0 - stays);
            let inflow = |n: f64, level: f64| (level - n * stays) * STEP / latency / (1.0 - stays);
            let mut free = self.limits[k]
                .as_ref()
                .map_or(0.0, |(all, _)| f64::from(spare(*all)));
            let noise = self.random.between(0.8, 1.2);
            let arriving = unit.rate * load(k) * STEP * noise;
            self.outcome[k].offered += arriving;
            for s in 0..unit.spread.len() {
                let arrives = arriving * unit.spread[s];
                let n = self.in_flight[k][s];
                let slots = self.limits[k]
                    .as_ref()
                    .map_or(f64::INFINITY, |(_, shares)| f64::from(shares[s].slots));
                // Slots of its own, then some of the spare ones. What is over the limit only drains.
                let borrowed = (level(n, arrives) - slots).clamp(0.0, free);
                free -= borrowed;
                let admitted = arrives.min(inflow(n, slots + borrowed).max(0.0));
                self.in_flight[k][s] = level(n, admitted);
                let done = (n + admitted - self.in_flight[k][s]).max(0.0);
                let usage = &mut self.usage[k][s];
                usage.admitted += (admitted * 1e6) as u64;
                if self.tells_cost {
                    usage.cpu_ns += (done * unit.cpu * 1e9) as u64;
                }
                usage.refused += ((arrives - admitted) * 1e6) as u64;
                usage.in_flight_ns += (n * STEP * 1e9) as u64;
                let fate = &mut self.outcome[k];
                match latency <= DEADLINE {
                    true => fate.good += done,
                    false => fate.late += done,
                }
            }
        }
    }

    fn tick(&mut self) {
        let mut sample = Sample::default();
        sample.set(Signal::Cpu, self.busy / TICK / self.cores);
        sample.set(Signal::PsiCpu, self.waited / TICK);
        if let Some(memory) = self.memory {
            sample.set(Signal::Memory, memory);
        }
        self.busy = 0.0;
        self.waited = 0.0;
        let units: Vec<(Priority, Vec<Usage>)> = self
            .units
            .iter()
            .zip(&mut self.usage)
            .zip(self.in_flight.iter().zip(&self.limits))
            .map(|((unit, usage), (in_flight, limit))| {
                let slots = |shard: usize| {
                    let (_, shares) = limit.as_ref()?;
                    Some(f64::from(shares[shard].slots))
                };
                let seen = usage
                    .iter()
                    .zip(in_flight)
                    .enumerate()
                    .map(|(s, (u, n))| Usage {
                        // Kept in millionths, so that fractions of a fluid are not lost.
                        admitted: u.admitted / 1_000_000,
                        refused: u.refused / 1_000_000,
                        in_flight: n.round() as u32,
                        // As shards tell it: what is above a shard's own slots is on spare ones.
                        borrowed: slots(s).map_or(0, |own| (n - own).max(0.0).round() as u32),
                        ..*u
                    })
                    .collect();
                usage.iter_mut().for_each(|u| {
                    *u = Usage {
                        admitted: u.admitted % 1_000_000,
                        refused: u.refused % 1_000_000,
                        ..Usage::default()
                    }
                });
                (unit.priority, seen)
            })
            .collect();
        let Some(limiter) = &mut self.limiter else {
            return;
        };
        let decided = limiter.tick(&sample, &units, TICK);
        if let Some(witness) = &mut self.witness {
            witness(&sample, &units, &decided, limiter);
        }
        self.watermarks.push(decided.reading.watermark);
        self.phase = decided.phase;
        self.limits.iter_mut().for_each(|limit| *limit = None);
        for limit in decided.limits {
            let owned: u32 = limit.shares.iter().map(|s| s.slots).sum();
            assert!(
                owned + spare(limit.total) <= limit.total,
                "slots were invented"
            );
            self.limits[limit.unit] = Some((limit.total, limit.shares));
        }
    }
}

/// Units of four classes that fill `cores` to 60 % of their CPU at 1×; the critical ones a twelfth of it.
pub fn units(random: &mut Random, cores: f64, shards: usize) -> Vec<Unit> {
    let classes = [
        (Priority::Critical, 0.05),
        (Priority::Normal, 0.55),
        (Priority::Batch, 0.25),
        (Priority::Stress, 0.15),
    ];
    let unit = |(priority, part): (Priority, f64), random: &mut Random| {
        let cpu = random.between(0.001, 0.01);
        let weights: Vec<f64> = (0..shards)
            .map(|_| random.between(0.0, 1.0).powi(3) + 1e-3)
            .collect();
        let sum: f64 = weights.iter().sum();
        Unit {
            priority,
            rate: 0.6 * cores * part / cpu,
            cpu,
            wait: random.between(0.0, 0.05),
            spread: weights.iter().map(|w| w / sum).collect(),
        }
    };
    classes.map(|class| unit(class, random)).into()
}

pub fn good(outcomes: &[Outcome], units: &[Unit]) -> f64 {
    outcomes
        .iter()
        .zip(units)
        .map(|(o, u)| o.good * u.cpu)
        .sum()
}
