//! What a line looks like in each dialect, and what no line can say.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray};
use arrow::datatypes::{Int32Type, Schema};

use super::*;

fn column(role: Role, name: &str, key: &str, array: &ArrayRef) -> Column {
    Column::new(name, key, role, "", array.data_type().clone())
}

/// The lines of a table, and why rows are none.
fn lines(
    dialect: Dialect,
    measurement: &str,
    columns: Vec<(Role, &str, &str, ArrayRef)>,
) -> (String, Vec<Unsayable>) {
    let named: Vec<Column> =
        columns.iter().map(|(role, name, key, array)| column(*role, name, key, array)).collect();
    let fields: Vec<_> = named
        .iter()
        .map(|c| arrow::datatypes::Field::new(&c.name, c.data_type.clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(.., array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let layout = Layout::new(dialect, measurement, &named).unwrap();
    let rows = Rows::new(&named, &batch).unwrap();
    let (mut body, mut unsayable) = (Body::default(), Vec::new());
    let all = layout.write(
        &rows,
        0..batch.num_rows(),
        (usize::MAX, usize::MAX),
        &mut body,
        &mut unsayable,
    );
    assert_eq!(all, batch.num_rows());
    let whole = body.bytes.clone();
    let parts: Vec<u8> =
        (0..body.ends.len()).flat_map(|line| body.lines(line..line + 1).to_vec()).collect();
    assert_eq!(parts, whole, "each line is found again");
    (String::from_utf8(whole).unwrap(), unsayable)
}

fn times(times: &[i64]) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC"))
}

fn texts(texts: &[Option<&str>]) -> ArrayRef {
    Arc::new(texts.iter().copied().collect::<DictionaryArray<Int32Type>>())
}

#[test]
fn a_point_is_a_line_with_its_tags_in_order_and_each_field_by_its_type() {
    let columns = vec![
        (Role::Time, "time", "time", times(&[1, 2])),
        (Role::Tag, "b", "b", texts(&[Some("x"), None])),
        (Role::Tag, "a", "a", texts(&[Some("y z"), Some("é")])),
        (Role::Field, "i", "i", Arc::new(Int64Array::from(vec![Some(i64::MIN), None])) as ArrayRef),
        (Role::Field, "u", "u", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        (Role::Field, "f", "f", Arc::new(Float64Array::from(vec![-0.0, 5e-324]))),
        (Role::Field, "t", "t", Arc::new(BooleanArray::from(vec![true, false]))),
        (Role::Field, "s", "s", Arc::new(StringArray::from(vec!["\"\\\n", ""]))),
    ];
    let (text, unsayable) = lines(Dialect::Go, "m,x y", columns);
    assert_eq!(unsayable, []);
    assert_eq!(
        text,
        "m\\,x\\ y,a=y\\ z,b=x f=-0.0,i=-9223372036854775808i,s=\"\\\"\\\\\n\",t=t,u=18446744073709551615u 1\n\
         m\\,x\\ y,a=é f=5e-324,s=\"\",t=f,u=0u 2\n"
    );
}

#[test]
fn a_backslash_is_doubled_where_the_server_takes_two_for_one() {
    let of = |dialect| {
        let columns = vec![
            (Role::Time, "time", "time", times(&[1])),
            (Role::Tag, "p", "p\\q", texts(&[Some("C:\\dir,x")])),
            (Role::Field, "v", "v\\w", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ];
        lines(dialect, "a\\b", columns).0
    };
    assert_eq!(of(Dialect::Go), "a\\b,p\\q=C:\\dir\\,x v\\w=1i 1\n");
    assert_eq!(of(Dialect::Rust), "a\\\\b,p\\\\q=C:\\\\dir\\,x v\\\\w=1i 1\n");
}

#[test]
fn columns_of_one_field_come_together_again() {
    let columns = vec![
        (Role::Time, "time", "time", times(&[1, 2, 3])),
        (Role::Tag, "x_tag", "x", texts(&[Some("t"), Some("t"), Some("t")])),
        (
            Role::Field,
            "x_float",
            "x",
            Arc::new(Float64Array::from(vec![Some(1.5), None, Some(2.0)])) as ArrayRef,
        ),
        (Role::Field, "x_integer", "x", Arc::new(Int64Array::from(vec![None, Some(7), Some(8)]))),
    ];
    let (text, unsayable) = lines(Dialect::Go, "m", columns);
    assert_eq!(text, "m,x=t x=1.5 1\nm,x=t x=7i 2\n");
    assert_eq!(
        unsayable,
        [Unsayable {
            row: 2,
            why: "the field `x` has values of two types in one point".to_owned()
        }]
    );
}

#[test]
fn what_a_server_would_take_for_something_else_is_never_sent() {
    let one = |measurement: &str, tag: &str, key: &str, value: f64, time: i64| {
        let columns = vec![
            (Role::Time, "time", "time", times(&[time])),
            (Role::Tag, "a", "a", texts(&[Some(tag)])),
            (Role::Field, "v", key, Arc::new(Float64Array::from(vec![value])) as ArrayRef),
        ];
        let (text, unsayable) = lines(Dialect::Go, measurement, columns);
        assert_eq!(text.is_empty(), unsayable.len() == 1, "{text:?} {unsayable:?}");
        unsayable.into_iter().next().map(|unsayable| unsayable.why)
    };
    assert_eq!(one("m", "x", "v", 1.0, 1), None);
    assert_eq!(one("m", "x", "v", 1.0, i64::MAX - 1), None);
    for (measurement, tag, key, value, time, expected) in [
        ("#m", "x", "v", 1.0, 1, "begins with `#`"),
        ("m\\", "x", "v", 1.0, 1, "ends in a backslash"),
        ("m\nn", "x", "v", 1.0, 1, "line break"),
        ("", "x", "v", 1.0, 1, "is empty"),
        ("m", "x\\", "v", 1.0, 1, "ends in a backslash"),
        ("m", "x\ny f=2", "v", 1.0, 1, "line break"),
        ("m", "", "v", 1.0, 1, "is empty"),
        ("m", "x", "time", 1.0, 1, "silently drops"),
        ("m", "x", "v\\", 1.0, 1, "ends in a backslash"),
        ("m", "x", "v", f64::NAN, 1, "not a finite number"),
        ("m", "x", "v", f64::INFINITY, 1, "not a finite number"),
        ("m", "x", "v", 1.0, i64::MIN, "keeps for itself"),
        ("m", "x", "v", 1.0, i64::MAX, "keeps for itself"),
    ] {
        let why = one(measurement, tag, key, value, time).unwrap_or_default();
        assert!(why.contains(expected), "{measurement:?} {tag:?} {key:?} {value} {time}: {why}");
    }
}

#[test]
fn a_point_without_any_field_is_none() {
    let columns = vec![
        (Role::Time, "time", "time", times(&[1])),
        (Role::Tag, "a", "a", texts(&[Some("x")])),
        (Role::Field, "v", "v", Arc::new(Float64Array::from(vec![None::<f64>])) as ArrayRef),
    ];
    let (text, unsayable) = lines(Dialect::Rust, "m", columns);
    assert_eq!((text.as_str(), unsayable.len()), ("", 1));
}
