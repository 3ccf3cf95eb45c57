//! Any points, written as InfluxDB writes them, come back as they were.

use super::*;

/// A point with one value, as a line says it.
#[derive(Debug, Clone)]
struct Line {
    measurement: String,
    tags: Tags,
    fields: Vec<(String, Given)>,
    time: i64,
}

#[derive(Debug, Clone)]
enum Given {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Boolean(bool),
    String(String),
}

// InfluxDB's own way of writing (models.MakeKey, escape.Bytes, EscapeStringField).
fn escape(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

impl Line {
    fn write(&self) -> String {
        let mut line = escape(&self.measurement, ",= \"");
        for (key, value) in &self.tags {
            line += &format!(",{}={}", escape(key, ",= "), escape(value, ",= "));
        }
        for (at, (key, value)) in self.fields.iter().enumerate() {
            line += if at == 0 { " " } else { "," };
            line += &escape(key, ",= \"");
            line += "=";
            line += &match value {
                Given::Float(value) => format!("{value:?}"),
                Given::Integer(value) => format!("{value}i"),
                Given::Unsigned(value) => format!("{value}u"),
                Given::Boolean(value) => value.to_string(),
                Given::String(value) => format!("\"{}\"", escape(value, "\"\\")),
            };
        }
        format!("{line} {}\n", self.time)
    }

    fn put(&self, rows: &mut Rows, different: &mut BTreeSet<String>) {
        let table = format!("db.autogen.{}", self.measurement);
        let key = (table, self.tags.clone(), self.time);
        for (field, value) in &self.fields {
            let (kind, text) = match value {
                Given::Float(value) => ("float", format!("{:x}", value.to_bits())),
                Given::Integer(value) => ("integer", value.to_string()),
                Given::Unsigned(value) => ("unsigned", value.to_string()),
                Given::Boolean(value) => ("boolean", value.to_string()),
                Given::String(value) => ("string", value.clone()),
            };
            let fields = rows.entry(key.clone()).or_default();
            let name = (field.clone(), kind.to_owned());
            if fields.insert(name.clone(), text.clone()).is_some_and(|before| before != text) {
                different.insert(format!("{key:?}{name:?}"));
            }
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-c,= \"\\\\é#]{0,5}[a-cé\"]".prop_filter("would be a comment", |name| !name.starts_with('#'))
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Given::Float),
        any::<i64>().prop_map(Given::Integer),
        any::<u64>().prop_map(Given::Unsigned),
        any::<bool>().prop_map(Given::Boolean),
        "[ab\"\\\\\n\r,= #é\0]{0,8}".prop_map(Given::String),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    let tags = prop::collection::btree_map(name(), name(), 0..3);
    let fields = prop::collection::vec((name(), given()), 1..4);
    let time = i64::MIN + 2..i64::MAX;
    (name(), tags, fields, time).prop_map(|(measurement, tags, fields, time)| Line {
        measurement,
        tags,
        fields,
        time,
    })
}

/// Lines that often speak of the same point, each of one field, in any order.
fn scattered() -> impl Strategy<Value = Vec<Line>> {
    let measurement = prop::sample::select(vec!["m", "n"]).prop_map(str::to_owned);
    let tags = prop::sample::select(vec![vec![], vec![("a", "1")], vec![("a", "1"), ("b", "2")]]);
    let tags = tags.prop_map(|tags| {
        tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    });
    let field = prop::sample::select(vec!["x", "y", "z"]).prop_map(str::to_owned);
    let value = prop_oneof![
        (0..3i64).prop_map(Given::Integer),
        (0..3i64).prop_map(|v| Given::Float(v as f64)),
        "[ab]".prop_map(Given::String),
    ];
    let line = (measurement, tags, field, value, 0..5i64).prop_map(
        |(measurement, tags, field, value, time)| Line {
            measurement,
            tags,
            fields: vec![(field, value)],
            time,
        },
    );
    prop::collection::vec(line, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_influxdb_writes_comes_back(lines in prop::collection::vec(line(), 0..8), memory in 0..2000usize) {
        let content: String = lines.iter().map(Line::write).collect();
        let (mut model, mut different) = (Rows::new(), BTreeSet::new());
        lines.iter().for_each(|line| line.put(&mut model, &mut different));
        let (rows, _) = rows_of(&open(content.as_bytes(), small(memory))).unwrap();
        prop_assert_eq!(rows, model);
    }

    #[test]
    fn scattered_lines_become_the_rows_of_a_map(lines in scattered(), memory in 0..20_000usize) {
        let content: String = lines.iter().map(Line::write).collect();
        let (mut model, mut different) = (Rows::new(), BTreeSet::new());
        lines.iter().for_each(|line| line.put(&mut model, &mut different));
        let (rows, listing) = rows_of(&open(content.as_bytes(), small(memory))).unwrap();
        prop_assert_eq!(rows, model);
        let reported = listing.warnings.first().map_or(0, |warning| {
            warning.split(' ').next().unwrap().parse().unwrap()
        });
        prop_assert_eq!(reported, different.len());
    }
}
