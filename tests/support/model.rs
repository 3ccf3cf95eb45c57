//! What an InfluxDB holds after some writes, in memory: points that are the same for the same seed,
//! their line protocol (by the escape rules of the Go servers), and the rows that an export must
//! give, named as the archive format says.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::row::{self, Column, Row};

/// InfluxDB 1.x cuts endless time into shards of seven days that begin on a Monday, in nanoseconds.
const WEEK: i128 = 7 * 86_400_000_000_000;
const A_MONDAY: i128 = 4 * 86_400_000_000_000;

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    String(String),
    Boolean(bool),
}

impl Value {
    /// InfluxDB's word for the type; its place among the columns; Arrow's type.
    fn kind(&self) -> (usize, &'static str, &'static str) {
        match self {
            Self::Float(_) => (0, "float", "Float64"),
            Self::Integer(_) => (1, "integer", "Int64"),
            Self::Unsigned(_) => (2, "unsigned", "UInt64"),
            Self::String(_) => (3, "string", "Utf8"),
            Self::Boolean(_) => (4, "boolean", "Boolean"),
        }
    }

    fn line_protocol(&self) -> String {
        match self {
            Self::Float(value) => format!("{value:?}"),
            Self::Integer(value) => format!("{value}i"),
            Self::Unsigned(value) => format!("{value}u"),
            Self::String(value) => format!("\"{}\"", escape(value, &['"', '\\'])),
            Self::Boolean(value) => value.to_string(),
        }
    }

    fn canonical(&self) -> String {
        match self {
            Self::Float(value) => row::float(*value),
            Self::String(value) => row::text(value),
            other => other.line_protocol(),
        }
    }
}

/// One write of one point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) measurement: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) fields: BTreeMap<String, Value>,
    pub(crate) time: i64,
}

impl Point {
    pub(crate) fn new(measurement: &str, time: i64) -> Self {
        let measurement = measurement.to_owned();
        Self { measurement, tags: BTreeMap::new(), fields: BTreeMap::new(), time }
    }

    pub(crate) fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn field(mut self, key: &str, value: Value) -> Self {
        self.fields.insert(key.to_owned(), value);
        self
    }

    /// Without a line feed at the end.
    pub(crate) fn line(&self) -> String {
        let mut line = escape(&self.measurement, &[',', ' ']);
        for (key, value) in &self.tags {
            line += &format!(",{}={}", name(key), name(value));
        }
        let fields = self.fields.iter().map(|(k, v)| format!("{}={}", name(k), v.line_protocol()));
        format!("{line} {} {}", fields.collect::<Vec<_>>().join(","), self.time)
    }
}

/// Escapes a tag's key or value, or a field's key. Backslashes stay as they are in names.
fn name(text: &str) -> String {
    escape(text, &[',', '=', ' '])
}

fn escape(text: &str, special: &[char]) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        escaped.extend(special.contains(&c).then_some('\\'));
        escaped.push(c);
    }
    escaped
}

/// What to generate.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) measurements: Vec<String>,
    /// Series a measurement.
    pub(crate) series: usize,
    /// Points a series.
    pub(crate) points: usize,
    pub(crate) from: i64,
    /// Time from one point of a series to the next.
    pub(crate) step: i64,
    /// The field `mixed` has another type every week, which 1.x allows.
    pub(crate) mixed: bool,
    /// Points at the smallest and the greatest time that InfluxDB takes, and around 1970.
    pub(crate) edges: bool,
}

impl Default for Shape {
    /// Two measurements, one of them with a difficult name; three series of 100 points each, over a
    /// bit more than four days from 2024-01-01.
    fn default() -> Self {
        Self {
            measurements: vec!["cpu".to_owned(), ODD.to_owned()],
            series: 3,
            points: 100,
            from: 1_704_067_200_000_000_000,
            step: 3_601_000_000_007,
            mixed: false,
            edges: false,
        }
    }
}

/// A name of a measurement with everything that some program stumbles over.
pub(crate) const ODD: &str = "odd \"name\", a=b/c\\d é%";

const STRINGS: [&str; 14] = [
    "",
    "plain",
    " ",
    "\"quoted\"",
    "back\\slash",
    "ends with \\",
    "comma, equals = and space",
    "line\nbreak",
    "\n# no comment\n",
    "carriage\r\nreturn\ttab",
    "é 漢字 🚀",
    "null",
    "'single' \\\" both",
    "control \u{1} nul \u{0}",
];
const FLOATS: [f64; 11] =
    [0.0, -0.0, 1.0, -1.5, 0.1, 5e-324, -2.2e-308, f64::MIN_POSITIVE, f64::MAX, f64::MIN, 1e21];
const INTEGERS: [i64; 7] =
    [0, -1, 1, i64::MIN, i64::MAX, 9_007_199_254_740_993, -9_007_199_254_740_993];
const TAGS: [&str; 8] =
    ["a", "with space", "comma,equals=", "C:\\dir\\x", "\\ ,\\=x", "\"q\"", "é 漢字", "#1"];

/// Everything that was written to one database and retention policy, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) points: Vec<Point>,
}

impl Model {
    /// The same points for the same seed and shape. Some are written twice with other fields, which
    /// InfluxDB merges: the new value wins, field by field.
    pub(crate) fn generate(seed: u64, shape: &Shape) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut model = Self::default();
        for measurement in &shape.measurements {
            for series in 0..shape.series {
                let mut tags = Point::new(measurement, 0).tag("host", &format!("h{series}"));
                // Tags that some series lack; one of them shares its name with a field.
                for key in ["region", "unit", "odd key, =\"é"] {
                    if random.u8(..3) > 0 {
                        tags = tags.tag(key, random.choice(TAGS).unwrap());
                    }
                }
                for index in 0..shape.points {
                    let time = shape.from + index as i64 * shape.step;
                    let time = time + random.i64(0..1000);
                    model.push(fill(Point { time, ..tags.clone() }, shape, &mut random));
                    if random.u8(..20) == 0 {
                        model.push(fill(Point { time, ..tags.clone() }, shape, &mut random));
                    }
                }
                let edges = [i64::MIN + 2, -1, 0, 1, i64::MAX - 1];
                for time in edges.into_iter().filter(|_| shape.edges) {
                    model.push(fill(Point { time, ..tags.clone() }, shape, &mut random));
                }
            }
        }
        model
    }

    pub(crate) fn push(&mut self, point: Point) {
        self.points.push(point);
    }

    /// One line a point, in order.
    pub(crate) fn lines(&self) -> String {
        self.points.iter().map(|point| point.line() + "\n").collect()
    }

    /// One line a field, field after field, as `influx_inspect export` writes.
    pub(crate) fn lines_by_field(&self) -> String {
        let mut lines = BTreeMap::new();
        for point in &self.points {
            for (key, value) in &point.fields {
                let fields = BTreeMap::from([(key.clone(), value.clone())]);
                let line = Point { fields, ..point.clone() }.line();
                let place = (&point.measurement, &point.tags, key, point.time);
                lines.insert(place, line + "\n"); // the last one wins
            }
        }
        lines.into_values().collect()
    }

    pub(crate) fn measurements(&self) -> BTreeSet<String> {
        self.points.iter().map(|point| point.measurement.clone()).collect()
    }

    /// The columns of a measurement as the archive names them.
    pub(crate) fn columns(&self, measurement: &str) -> Vec<Column> {
        self.named_columns(measurement).into_iter().map(|(_, column)| column).collect()
    }

    /// The rows of a measurement, sorted.
    pub(crate) fn rows(&self, measurement: &str) -> Vec<Row> {
        self.rows_between(measurement, i64::MIN, i64::MAX)
    }

    /// The rows with `from <= time < to`, sorted.
    pub(crate) fn rows_between(&self, measurement: &str, from: i64, to: i64) -> Vec<Row> {
        let columns = self.named_columns(measurement);
        let mut merged: BTreeMap<_, BTreeMap<&str, &Value>> = BTreeMap::new();
        let points = self.points.iter().filter(|point| point.measurement == measurement);
        for point in points.filter(|point| from <= point.time && point.time < to) {
            let row = merged.entry((point.time, &point.tags)).or_default();
            row.extend(point.fields.iter().map(|(key, value)| (key.as_str(), value)));
        }
        let render =
            |((time, tags), fields): ((i64, &BTreeMap<String, String>), BTreeMap<_, _>)| {
                let cell = |place: &Place| match place {
                    Place::Time => Some(time.to_string()),
                    Place::Tag(key) => tags.get(key).map(|value| row::text(value)),
                    Place::Field(key, kind) => {
                        let value: Option<&&Value> = fields.get(key.as_str());
                        value.filter(|value| value.kind().0 == *kind).map(|value| value.canonical())
                    }
                };
                let cells = columns.iter();
                cells
                    .filter_map(|(place, column)| Some((column.name.clone(), cell(place)?)))
                    .collect()
            };
        let mut rows: Vec<Row> = merged.into_iter().map(render).collect();
        rows.sort();
        rows
    }

    fn named_columns(&self, measurement: &str) -> Vec<(Place, Column)> {
        let mut tags = BTreeSet::new();
        let mut fields: BTreeMap<&String, BTreeSet<_>> = BTreeMap::new();
        for point in self.points.iter().filter(|point| point.measurement == measurement) {
            tags.extend(point.tags.keys());
            for (key, value) in &point.fields {
                fields.entry(key).or_default().insert(value.kind());
            }
        }
        let mut taken = HashSet::new();
        let mut column = |wanted: String, key: &str, role: &str, data_type: &str| {
            let numbered = (2..).map(|number| format!("{wanted}_{number}"));
            let mut names = std::iter::once(wanted.clone()).chain(numbered);
            let name = names.find(|name| taken.insert(name.to_lowercase())).unwrap();
            let (key, role) = (key.to_owned(), role.to_owned());
            Column { name, key, role, data_type: data_type.to_owned() }
        };
        let time = "Timestamp(ns, \"UTC\")";
        let mut columns = vec![(Place::Time, column("time".to_owned(), "time", "time", time))];
        for tag in tags {
            let suffix = if fields.contains_key(tag) { "_tag" } else { "" };
            let column = column(format!("{tag}{suffix}"), tag, "tag", "dictionary");
            columns.push((Place::Tag(tag.clone()), column));
        }
        for (field, kinds) in fields {
            for (place, kind, data_type) in &kinds {
                let several = kinds.len() > 1;
                let wanted = if several { format!("{field}_{kind}") } else { field.clone() };
                let column = column(wanted, field, "field", data_type);
                columns.push((Place::Field(field.clone(), *place), column));
            }
        }
        columns
    }
}

/// Where the values of a column are.
enum Place {
    Time,
    Tag(String),
    Field(String, usize),
}

/// Gives a point some of the fields, one at least.
fn fill(mut point: Point, shape: &Shape, random: &mut fastrand::Rng) -> Point {
    let load = match random.bool() {
        true => *random.choice(&FLOATS).unwrap(),
        false => random.f64() * 100.0,
    };
    let count = match random.bool() {
        true => *random.choice(&INTEGERS).unwrap(),
        false => random.i64(..),
    };
    let state = (*random.choice(&STRINGS).unwrap()).to_owned();
    let fields = [
        ("load", Value::Float(load)),
        ("count", Value::Integer(count)),
        ("state", Value::String(state.clone())),
        ("up", Value::Boolean(random.bool())),
        ("unit", Value::Float(f64::from(random.u8(..)))),
        ("odd \"field\", =\\é", Value::Integer(random.i64(-9..9))),
    ];
    for (key, value) in fields {
        if random.u8(..4) > 0 {
            point = point.field(key, value);
        }
    }
    if shape.mixed {
        let week = (i128::from(point.time) - A_MONDAY).div_euclid(WEEK);
        let value = match week.rem_euclid(4) {
            0 => Value::Float(load),
            1 => Value::Integer(count),
            2 => Value::String(state),
            _ => Value::Boolean(count > 0),
        };
        point = point.field("mixed", value);
    }
    match point.fields.is_empty() {
        true => point.field("load", Value::Float(load)),
        false => point,
    }
}
