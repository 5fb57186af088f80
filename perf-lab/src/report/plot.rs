//! Plots as SVG: a few polylines over two axes, and stacked bars. Colours and fonts come from the
//! page's style sheet, so that a plot follows the reader's light or dark.

use std::fmt::Write as _;

/// The drawing is made for half a page of a desk and the whole width of a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 66.0;
/// Room for half of the last tick's text, in the larger type of a phone too.
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Lines of text for moments.
const MOMENT_LINES: usize = 4;

/// Where a linear axis may end: closer than its ticks, so that little of it stays empty.
const LINEAR_ENDS: [f64; 10] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];

/// How an axis places a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By its logarithm.
    Logarithmic,
    /// A percentile p by the logarithm of 1/(1 - p), so that each further nine takes the same room:
    /// tails are what the plot is for.
    Tail,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis<'a> {
    pub(super) label: &'a str,
    pub(super) scale: Scale,
}

/// Something that happened at a place of the x axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) at: f64,
    pub(super) what: String,
}

/// A line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Its name, for the tooltip.
    pub(super) name: String,
    /// Which of the style sheet's colours.
    pub(super) colour: usize,
    /// Whether it is drawn faint: what is there for comparison.
    pub(super) is_faint: bool,
    /// Whether its points are marked.
    pub(super) has_marks: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// A bar of two parts.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) colour: usize,
    /// Drawn full.
    pub(super) first: f64,
    /// Drawn light, after it.
    pub(super) second: f64,
}

/// A cell of a heat map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    /// Where it begins and ends on the x axis.
    pub(super) x: (f64, f64),
    /// The same on the y axis.
    pub(super) y: (f64, f64),
    /// How many are in it.
    pub(super) count: u64,
}

/// Draws lines; `None` if there is nothing to draw.
pub(super) fn lines(
    title: &str,
    x: Axis<'_>,
    y: Axis<'_>,
    lines: &[Line],
    moments: &[Moment],
) -> Option<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = Range::of(x.scale, points().map(|point| point.0))?;
    let up = Range::of(y.scale, points().map(|point| point.1))?;
    let mut svg = open(title, HEIGHT);
    axes(&mut svg, (&across, x.label), (&up, y.label));
    mark(&mut svg, &across, moments);
    for line in lines {
        let faint = if line.is_faint { " faint" } else { "" };
        let _ = write!(svg, "<g class=\"c{}{faint}\">", line.colour);
        let _ = write!(
            svg,
            "<title>{}</title><polyline points=\"",
            escape(&line.name)
        );
        for (x, y) in &line.points {
            let _ = write!(svg, "{:.1},{:.1} ", across.place_x(*x), up.place_y(*y));
        }
        svg.push_str("\"/>");
        for (x, y) in line.points.iter().filter(|_| line.has_marks) {
            let (at_x, at_y) = (across.place_x(*x), up.place_y(*y));
            let _ = write!(svg, "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\"/>");
        }
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// Draws a heat map: the more in a cell, the stronger, by the logarithm, so that the one request in a
/// thousand shows beside the other 999. `None` if there is nothing to draw.
pub(super) fn heat(
    title: &str,
    x: Axis<'_>,
    y: Axis<'_>,
    colour: usize,
    cells: &[Cell],
    moments: &[Moment],
) -> Option<String> {
    /// A single request is still seen.
    const FAINTEST: f64 = 0.18;
    let most = cells.iter().map(|cell| cell.count).max()?.max(2);
    let across = Range::of(x.scale, cells.iter().map(|cell| cell.x.1))?;
    let up = Range::of(y.scale, cells.iter().flat_map(|cell| [cell.y.0, cell.y.1]))?;
    let mut svg = open(title, HEIGHT);
    axes(&mut svg, (&across, x.label), (&up, y.label));
    let _ = write!(svg, "<g class=\"c{colour}\">");
    for Cell { x, y, count } in cells {
        let (left, right) = (across.place_x(x.0), across.place_x(x.1));
        let (bottom, top) = (up.place_y(y.0), up.place_y(y.1));
        let share = (*count as f64).ln() / (most as f64).ln();
        let _ = write!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             opacity=\"{:.2}\"/>",
            right - left,
            bottom - top,
            FAINTEST + (1.0 - FAINTEST) * share
        );
    }
    svg.push_str("</g>");
    mark(&mut svg, &across, moments);
    svg.push_str("</svg>");
    Some(svg)
}

/// Draws the grid, the numbers and the labels.
fn axes(svg: &mut String, (across, x): (&Range, &str), (up, y): (&Range, &str)) {
    for (value, text) in across.ticks() {
        let at = across.place_x(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 17.0
        );
    }
    for (value, text) in up.ticks() {
        let at = up.place_y(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            at + 4.0
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" transform=\"translate(13 {:.1}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        escape(x),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(y)
    );
}

/// Marks what happened.
fn mark(svg: &mut String, across: &Range, moments: &[Moment]) {
    for (i, moment) in moments.iter().enumerate() {
        let at = across.place_x(moment.at);
        // Each on a line of its own, so that two moments close together can both be read; near the
        // right edge the text stands before its moment.
        let (from, anchor) = match at > WIDTH * 0.6 {
            true => (at - 4.0, "end"),
            false => (at + 4.0, "start"),
        };
        let _ = write!(
            svg,
            "<line class=\"moment\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"moment\" x=\"{from:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - BOTTOM,
            TOP + 12.0 + 15.0 * (i % MOMENT_LINES) as f64,
            escape(&moment.what)
        );
    }
}

/// Draws bars, one below the other; `None` if there are none.
pub(super) fn bars(title: &str, bars: &[Bar]) -> Option<String> {
    const ROW: f64 = 30.0;
    const NAMES: f64 = 96.0;
    const VALUES: f64 = 58.0;
    let longest = bars
        .iter()
        .map(|bar| bar.first + bar.second)
        .max_by(f64::total_cmp)
        .filter(|longest| *longest > 0.0)?;
    let height = ROW * bars.len() as f64 + 6.0;
    let mut svg = open(title, height);
    for (i, bar) in bars.iter().enumerate() {
        let top = ROW * i as f64 + 5.0;
        let scale = (WIDTH - NAMES - VALUES) / longest;
        let (first, second) = (bar.first * scale, bar.second * scale);
        let whole = bar.first + bar.second;
        let name = escape(&shorten(&bar.name));
        let _ = write!(
            svg,
            "<g class=\"c{}\"><title>{}: user {:.2}, system {:.2}</title>\
             <rect x=\"{NAMES}\" y=\"{top}\" width=\"{first:.1}\" height=\"20\"/>\
             <rect class=\"light\" x=\"{:.1}\" y=\"{top}\" width=\"{second:.1}\" height=\"20\"/></g>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <text class=\"value\" x=\"{:.1}\" y=\"{}\">{}</text>",
            bar.colour,
            escape(&bar.name),
            bar.first,
            bar.second,
            NAMES + first,
            NAMES - 8.0,
            top + 15.0,
            NAMES + first + second + 6.0,
            top + 15.0,
            short(whole)
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
    )
}

/// Names of more letters than fit beside a bar lose their middle: both ends may tell them apart.
fn shorten(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= 13 {
        return name.to_owned();
    }
    let start: String = letters.iter().take(6).collect();
    let end: String = letters.iter().skip(letters.len() - 6).collect();
    format!("{start}…{end}")
}

/// The stretch of an axis.
struct Range {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Range {
    /// A little more than the values need, ending on round numbers.
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Range> {
        let usable =
            |value: &f64| value.is_finite() && (scale != Scale::Logarithmic || *value > 0.0);
        let values: Vec<f64> = values.filter(usable).collect();
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?;
        let (low, high) = match scale {
            Scale::Linear => (0.0, round(most, &LINEAR_ENDS)),
            Scale::Tail => (0.0, most.max(0.99)),
            Scale::Logarithmic => {
                let (low, high) = (round_down_log(least), round_up(most));
                // One value, or values on one round number, need some room all the same.
                (low, if high > low { high } else { low * 10.0 })
            }
        };
        Some(Range { scale, low, high })
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Tail => -(1.0 - value.min(0.999_999_9)).log10(),
        }
    }

    /// 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let (low, high) = (self.place(self.low), self.place(self.high));
        if high <= low {
            return 0.0;
        }
        ((self.place(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn place_x(&self, value: f64) -> f64 {
        LEFT + self.part(value) * (WIDTH - LEFT - RIGHT)
    }

    fn place_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.part(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = round_up(self.high / 5.0);
                let count = (self.high / step + 0.001) as usize;
                let values = (0..=count).map(|i| i as f64 * step);
                values.map(|value| (value, short(value))).collect()
            }
            Scale::Logarithmic => {
                let decades = (self.high / self.low).log10();
                let factors: &[f64] = match decades {
                    d if d <= 2.1 => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                let first = self.low.log10().floor() as i32;
                let exponents = first..=first + decades.ceil() as i32 + 1;
                exponents
                    .flat_map(|exponent| factors.iter().map(move |f| f * 10f64.powi(exponent)))
                    .filter(|value| *value >= self.low * 0.999 && *value <= self.high * 1.001)
                    .map(|value| (value, short(value)))
                    .collect()
            }
            Scale::Tail => [
                (0.0, "0"),
                (0.9, "90 %"),
                (0.99, "99 %"),
                (0.999, "99.9 %"),
                (0.9999, "99.99 %"),
                (0.99999, "99.999 %"),
            ]
            .into_iter()
            .filter(|(value, _)| *value <= self.high + 1e-9)
            .map(|(value, text)| (value, text.to_owned()))
            .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below.
fn round_up(value: f64) -> f64 {
    round(value, &[1.0, 2.0, 5.0])
}

/// One of `factors` times a power of ten, not below.
fn round(value: f64, factors: &[f64]) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let enough = |factor: &&f64| **factor * power >= value * 0.999_999;
    factors.iter().find(enough).copied().unwrap_or(10.0) * power
}

/// 1, 2 or 5 times a power of ten, not above.
fn round_down_log(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let factors = [5.0, 2.0, 1.0];
    let factor = factors
        .into_iter()
        .find(|factor| factor * power <= value * 1.000_001);
    factor.unwrap_or(1.0) * power
}

/// Three significant digits, thousands as k.
pub(super) fn short(value: f64) -> String {
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    match value.abs() {
        v if v >= 1e6 => trim(format!("{:.2}", value / 1e6)) + "M",
        v if v >= 1e4 => trim(format!("{:.1}", value / 1e3)) + "k",
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => trim(format!("{value:.1}")),
        v if v >= 0.01 => trim(format!("{value:.2}")),
        v if v > 0.0 => format!("{value:.0e}"),
        _ => "0".to_owned(),
    }
}

/// For text in SVG and HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Axes end on round numbers, and a nine takes the same room as the one before it.
    #[test]
    fn axes() {
        let range = Range::of(Scale::Linear, [3.0, 42.0].into_iter()).unwrap();
        assert_eq!((range.low, range.high), (0.0, 50.0));
        let ticks: Vec<String> = range.ticks().into_iter().map(|tick| tick.1).collect();
        assert_eq!(ticks, ["0", "10", "20", "30", "40", "50"]);
        let range = Range::of(Scale::Logarithmic, [60.0, 900.0].into_iter()).unwrap();
        assert_eq!((range.low.round(), range.high.round()), (50.0, 1_000.0));
        let ticks: Vec<String> = range.ticks().into_iter().map(|tick| tick.1).collect();
        assert_eq!(ticks, ["50", "100", "200", "500", "1000"]);
        let range = Range::of(Scale::Tail, [0.0, 0.9999].into_iter()).unwrap();
        let room = range.part(0.99) - range.part(0.9);
        assert!((range.part(0.999) - range.part(0.99) - room).abs() < 1e-9);
        assert!(Range::of(Scale::Logarithmic, [0.0, f64::NAN].into_iter()).is_none());
        assert!(Range::of(Scale::Logarithmic, [10.0].into_iter()).is_some());
    }

    /// Numbers have the digits that a person reads.
    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (12.34, "12.3"),
            (950.4, "950"),
            (12_500.0, "12.5k"),
            (2_000_000.0, "2M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    /// A heat map has a cell for each cell, the fullest the darkest, and the emptiest still visible.
    #[test]
    fn heat_is_by_the_logarithm() {
        let axis = |scale| Axis { label: "x", scale };
        let cell = |at: f64, count| Cell {
            x: (at, at + 0.1),
            y: (100.0, 120.0),
            count,
        };
        let cells = [cell(0.0, 1_000), cell(0.1, 1), cell(0.2, 32)];
        let (x, y) = (axis(Scale::Linear), axis(Scale::Logarithmic));
        let svg = heat("t", x, y, 0, &cells, &[]).unwrap();
        let opacities: Vec<&str> = svg
            .split("opacity=\"")
            .skip(1)
            .map(|rest| &rest[..4])
            .collect();
        assert_eq!(opacities, ["1.00", "0.18", "0.59"], "{svg}");
        assert_eq!(heat("t", x, y, 0, &[], &[]), None);
    }

    /// Names are escaped, nothing is not drawn, and every point lies within the drawing.
    #[test]
    fn draws_within_its_box() {
        let line = Line {
            name: "<a&b>".to_owned(),
            colour: 1,
            is_faint: false,
            has_marks: true,
            points: vec![(0.0, 50.0), (0.5, 60.0), (0.999, 40_000.0)],
        };
        let x = Axis {
            label: "x",
            scale: Scale::Tail,
        };
        let y = Axis {
            label: "y",
            scale: Scale::Logarithmic,
        };
        let moment = Moment {
            at: 0.5,
            what: "a <push>".to_owned(),
        };
        let svg = lines("t", x, y, &[line], &[moment]).unwrap();
        assert!(svg.contains("&lt;a&amp;b&gt;") && !svg.contains("<a&"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains(">a &lt;push&gt;<"), "{svg}");
        assert_eq!(lines("t", x, y, &[], &[]), None);
        assert_eq!(bars("t", &[]), None);
        assert_eq!(shorten("tidegate-1234567890"), "tidega…567890");
    }
}
