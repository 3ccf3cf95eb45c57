//! Whole files through the source, against a model that is a map.

mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt64Type,
};
use proptest::prelude::*;

use super::*;
use crate::model::{Division, ReadMode};
use crate::model::{Role, TableId};
use crate::window::Slice;

type Tags = BTreeMap<String, String>;
type Fields = BTreeMap<(String, String), String>;
/// By database.policy.measurement, tags and time.
type Rows = BTreeMap<(String, Tags, i64), Fields>;

fn small(memory_bytes: usize) -> Options {
    Options { memory_bytes, database: Some("db".to_owned()), ..Options::default() }
}

struct Opened {
    source: LineProtocolSource,
    _file: tempfile::NamedTempFile,
}

fn open(content: &[u8], options: Options) -> Opened {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let source = LineProtocolSource::new("test".to_owned(), file.path().to_owned(), options);
    Opened { source, _file: file }
}

async fn batches(
    source: &LineProtocolSource,
    table: &Table,
    slice: Slice,
) -> Result<Vec<RecordBatch>> {
    let chunk = Chunk { table: Arc::new(table.clone()), slice };
    let (sender, mut receiver) = BatchSender::channel(1);
    let read = source.read(&chunk, sender);
    let collect = async {
        let mut all = Vec::new();
        while let Some(batch) = receiver.recv().await {
            all.push(batch);
        }
        all
    };
    let (result, all) = tokio::join!(read, collect);
    result.map(|_| all)
}

fn text(array: &dyn Array, row: usize) -> String {
    match array.data_type() {
        DataType::Float64 => {
            format!("{:x}", array.as_primitive::<Float64Type>().value(row).to_bits())
        }
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Dictionary(..) => {
            let tags = array.as_dictionary::<Int32Type>();
            tags.values().as_string::<i32>().value(tags.keys().value(row) as usize).to_owned()
        }
        other => panic!("{other}"),
    }
}

fn add_rows(table: &Table, batch: &RecordBatch, rows: &mut Rows) {
    let id = &table.id;
    let name = format!("{}.{}.{}", id.database, id.schema, id.table);
    let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
    for row in 0..batch.num_rows() {
        let (mut tags, mut fields) = (Tags::new(), Fields::new());
        for (at, column) in table.columns.iter().enumerate().skip(1) {
            let array = batch.column(at);
            if array.is_null(row) {
                continue;
            }
            let value = text(array, row);
            match column.role {
                Role::Tag => tags.insert(column.key.clone(), value),
                _ => fields.insert((column.key.clone(), column.source_type.clone()), value),
            };
        }
        let before = rows.insert((name.clone(), tags, times.value(row)), fields);
        assert_eq!(before, None, "a row came twice");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn rows_of(opened: &Opened) -> Result<(Rows, Listing)> {
    let source = &opened.source;
    let listing = source.list().await?;
    let bounds = source.bounds(&listing.tables).await?;
    let mut rows = Rows::new();
    for (table, bounds) in listing.tables.iter().zip(bounds) {
        let all = batches(source, table, Slice::All).await?;
        let count: usize = all.iter().map(RecordBatch::num_rows).sum();
        let counted = source.count(table, Window::ALL).await?;
        assert_eq!(counted, RowCount { rows: count as u64, exact: true });
        assert_eq!(table.data_ranges, [bounds.unwrap()]);
        all.iter().for_each(|batch| add_rows(table, batch, &mut rows));
        assert!(batches(source, table, Slice::NullTime).await?.is_empty());
    }
    Ok((rows, listing))
}

fn read(content: &[u8]) -> Result<(Rows, Listing)> {
    rows_of(&open(content, small(1 << 20)))
}

/// Rows in a form that is short to write down.
fn shown(content: &str) -> Vec<String> {
    let (rows, _) = read(content.as_bytes()).unwrap();
    rows.into_iter()
        .map(|((table, tags, time), fields)| {
            let tags: Vec<_> =
                tags.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            let fields: Vec<_> = fields
                .into_iter()
                .map(|((key, kind), value)| match kind.as_str() {
                    "float" => {
                        let bits = u64::from_str_radix(&value, 16).unwrap();
                        format!("{key}={:?}", f64::from_bits(bits))
                    }
                    kind => format!("{key}:{kind}={value}"),
                })
                .collect();
            format!("{table}|{}|{}|{time}", tags.join(";"), fields.join(";"))
        })
        .collect()
}

fn wrong(content: &str) -> String {
    read(content.as_bytes()).unwrap_err().to_string()
}

#[test]
fn an_export_of_influx_inspect_is_read() {
    let export = "# INFLUXDB EXPORT: 1677-09-21T00:12:43Z - 2262-04-11T23:47:16Z\n\
        # DDL\n\
        CREATE DATABASE \"metrics\" WITH NAME autogen\n\
        CREATE RETENTION POLICY \"long\" ON \"metrics\" DURATION 0s REPLICATION 1\n\
        # DML\n\
        # CONTEXT-DATABASE:metrics\n\
        # CONTEXT-RETENTION-POLICY:autogen\n\
        # writing tsm data\n\
        cpu,host=a idle=1 1000\n\
        cpu,host=a idle=2 2000\n\
        cpu,host=a user=3i 1000\n\
        # CONTEXT-DATABASE:metrics\n\
        # CONTEXT-RETENTION-POLICY:long\n\
        # writing wal data\n\
        cpu,host=a idle=9 1000\n\
        \n\
        cpu,host=a note=\"two\n\
        lines, \\\"x\\\" \\\\ # no comment\" 1000\n";
    let expected = [
        "metrics.autogen.cpu|host=a|idle=1.0;user:integer=3|1000",
        "metrics.autogen.cpu|host=a|idle=2.0|2000",
        "metrics.long.cpu|host=a|idle=9.0;note:string=two\nlines, \"x\" \\ # no comment|1000",
    ];
    assert_eq!(shown(export), expected);
    let opened = open(export.as_bytes(), small(1 << 20));
    let (_, listing) = rows_of(&opened).unwrap();
    assert!(listing.warnings.is_empty(), "{:?}", listing.warnings);
    assert!(listing.tables.iter().all(|table| {
        table.read_mode == ReadMode::OnePass
            && matches!(table.identity.division, Some(Division::File(_)))
    }));
}

#[tokio::test]
async fn statements_become_an_artifact() {
    let opened = open(b"# DDL\nCREATE DATABASE \"x\"\n# DML\nm f=1 1\n", small(1 << 20));
    let Artifacts { files: artifacts, statuses, .. } = opened.source.artifacts().await.unwrap();
    assert_eq!((artifacts[0].name.as_str(), artifacts[0].extension), ("ddl", "influxql"));
    assert_eq!(artifacts[0].content, "CREATE DATABASE \"x\"\n");
    assert_eq!(
        (statuses[0].kind.as_str(), &statuses[0].status),
        ("ddl", &ArtifactOutcome::Saved(String::new()))
    );
    let opened = open(b"m f=1 1\n", small(1 << 20));
    let Artifacts { files: artifacts, statuses, .. } = opened.source.artifacts().await.unwrap();
    assert!(artifacts.is_empty());
    assert_eq!(statuses[0].status, ArtifactOutcome::None);
}

#[test]
fn lines_of_one_point_are_merged_however_their_tags_are_ordered() {
    let content = "m,b=2,a=1 x=1 5\nm,a=1,b=2 y=2 5\nm,a=1,b=2,c= z=t 5\nm,a=1 x=1 5\n";
    let merged = ["db.autogen.m|a=1|x=1.0|5", "db.autogen.m|a=1;b=2|x=1.0;y=2.0;z:boolean=true|5"];
    assert_eq!(shown(content), merged);
}

#[test]
fn the_last_value_wins_and_only_different_ones_are_reported() {
    let content = "m a=1,b=1 5\nm a=2 5\nm b=1 5\nm c=1,c=2 6\nm a=1 5\n";
    let (rows, listing) = read(content.as_bytes()).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(shown(content)[0], "db.autogen.m||a=1.0;b=1.0|5");
    assert_eq!(listing.warnings.len(), 1);
    assert!(listing.warnings[0].starts_with("2 values were written twice in "));
    assert!(listing.warnings[0].ends_with("; the last one is kept, as InfluxDB does"));
}

/// As InfluxDB 1.6.7 itself named these, when they were written to it.
#[test]
fn names_are_those_that_influxdb_shows() {
    let content = [
        r"m1,t=a\\,b f=1 1",
        r"m2,t==x f=1 1",
        r#"m3 a\"b=1 1"#,
        r#"m4 a"b=1 1"#,
        r#"m\"6 f=1 1"#,
        r"m\=7 f=1 1",
        "m8,t=a\\\nb a\\\nb=1 1",
        r#"m9 f="a\nb\\c\"d\e" 1"#,
        "mt\tx,t=a\0b \tf=1 1",
        r"mw,t=C:\dir\\new f=1 1",
        r#"mx,t=a\"b "q"=2 1"#,
        r"my,a\ b=c\=d f\=\ =1 1",
    ];
    let expected = [
        r#"m"6||f=1.0"#,
        r"m1|t=a\,b|f=1.0",
        "m2|t==x|f=1.0",
        r#"m3||a"b=1.0"#,
        r#"m4||a"b=1.0"#,
        "m8|t=a\\\nb|a\\\nb=1.0",
        r#"m9||f:string=a\nb\c"d\e"#,
        "m=7||f=1.0",
        "mt\tx|t=a\0b|f=1.0",
        r"mw|t=C:\dir\\new|f=1.0",
        r#"mx|t=a\"b|"q"=2.0"#,
        "my|a b=c=d|f= =1.0",
    ];
    let expected = expected.map(|row| format!("db.autogen.{row}|1"));
    assert_eq!(shown(&(content.join("\n") + "\n")), expected);
}

#[test]
fn a_field_of_several_types_keeps_every_value() {
    let content = "m v=1 1\nm v=1i 2\nm v=1u 3\nm v=\"1\" 4\nm v=t 5\nm v=2 5\n";
    let (rows, listing) = read(content.as_bytes()).unwrap();
    let names: Vec<_> = listing.tables[0].columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["time", "v_float", "v_integer", "v_unsigned", "v_string", "v_boolean"]);
    assert_eq!(rows.len(), 5);
    assert_eq!(shown(content)[4], "db.autogen.m||v:boolean=true;v=2.0|5");
    assert!(listing.warnings.is_empty());
}

#[test]
fn line_ends_blanks_and_a_byte_order_mark_are_tolerated() {
    let content = "\u{feff}# x\r\n\r\n \t\n  m f=1 5\r\nm   f=2  6  \nm f=3 -7";
    let expected = ["f=3.0|-7", "f=1.0|5", "f=2.0|6"];
    assert_eq!(shown(content), expected.map(|row| format!("db.autogen.m||{row}")));
}

#[test]
fn what_is_wrong_is_an_error_with_its_line() {
    let cases = [
        ("m f=1", "no timestamp"),
        ("m f=1 ", "no timestamp"),
        ("m f=\"x\" ", "no timestamp"),
        ("m", "no fields"),
        ("m,a=1", "no fields"),
        ("m  ", "no fields"),
        ("m 1700", "without `=`"),
        ("m f= 5", "without a value"),
        ("m f=1, 5", "without `=`"),
        ("m f=NaN 5", "NaN"),
        ("m f=-Inf 5", "NaN"),
        ("m f=1e999 5", "64 bits"),
        ("m f=9223372036854775808i 5", "64 bits"),
        ("m f=1 9223372036854775808", "64 bits"),
        ("m f=1 9223372036854775807", "years 1677 to 2262"),
        ("m f=1 -9223372036854775807", "years 1677 to 2262"),
        ("m f=\"x\"y 5", "neither a comma nor a space"),
        ("m,a=1,a=1 f=1 5", "occurs twice"),
        ("m,a=1,b=1,a=2 f=1 5", "occurs twice"),
        ("m,a f=1 5", "without `=`"),
        ("m,a=b=c f=1 5", "unescaped `=`"),
        (",a=b f=1 5", "no measurement"),
        ("m f=1 5 6", "timestamp"),
        ("m f=\"x 5", "quote"),
        ("CREATE DATABASE x", "without `=`"),
    ];
    for (line, why) in cases {
        let content = format!("# DML\nm s=\"a\nb\" 1\n{line}\nm f=1 1\n");
        let error = wrong(&content);
        assert!(error.contains(", line 4: ") && error.contains(why), "{line}: {error}");
    }
    let invalid = [
        b"m f=\"\xff\" 1\n".as_slice(),
        b"m\xff f=1 1\n",
        b"m,a=\xff f=1 1\n",
        b"m,\xff=1 f=1 1\n",
        b"m \xff=1 1\n",
        b"# CONTEXT-DATABASE:\xff\nm f=1 1\n",
    ];
    for content in invalid {
        let error = read(content).unwrap_err().to_string();
        assert!(error.contains("UTF-8") && error.contains("line 1"), "{error}");
    }
}

#[test]
fn a_file_that_was_cut_is_an_error_where_that_can_be_seen() {
    let content = "m,h=a f=1,s=\"x\" 1700000000000000000\n";
    let twice = [content, content].concat();
    for cut in content.len() + 1..twice.len() - 1 {
        assert!(read(&twice.as_bytes()[..cut]).is_err(), "{}", &twice[..cut]);
    }
    let (rows, listing) = read(&twice.as_bytes()[..twice.len() - 1]).unwrap();
    assert_eq!(rows.len(), 1);
    assert!(listing.warnings[0].contains("does not end with a newline"));

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(twice.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::stream::encode_all(twice.as_bytes(), 3).unwrap();
    for whole in [gzip, zstd] {
        let (rows, listing) = read(&whole).unwrap();
        assert_eq!((rows.len(), listing.warnings.len()), (1, 0));
        for cut in 1..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
    }
}

#[test]
fn comments_that_would_be_points_are_reported() {
    let (rows, listing) = read(b"m f=1 1\n#m f=2 2\n# fine\n#m f=3 3\n").unwrap();
    assert_eq!(rows.len(), 1);
    assert!(listing.warnings[0].starts_with("2 lines of "), "{:?}", listing.warnings);
    assert!(listing.warnings[0].contains("line 2"));
}

#[test]
fn an_empty_file_has_no_tables_and_says_so() {
    for content in ["", "\n", "# DML\n"] {
        let (rows, listing) = read(content.as_bytes()).unwrap();
        assert!(rows.is_empty() && listing.tables.is_empty());
        assert!(listing.warnings[0].ends_with("has no points"));
    }
}

#[test]
fn tables_that_are_not_selected_are_counted() {
    let options = Options { selects: Arc::new(|id: &TableId| id.table != "no"), ..small(1 << 20) };
    let (rows, listing) = rows_of(&open(b"no f=1 1\nyes f=1 1\nno,a=b f=1 2\n", options)).unwrap();
    assert_eq!((rows.len(), listing.tables.len(), listing.excluded.len()), (1, 1, 1));
    assert_eq!(listing.excluded[0].what, "db.autogen.no");
    assert!(listing.excluded[0].why.contains("2 lines"), "{}", listing.excluded[0].why);
}

#[test]
fn timestamps_of_a_coarser_precision_are_multiplied() {
    let options = |precision_nanos| Options { precision_nanos, ..small(1 << 20) };
    let (rows, _) = rows_of(&open(b"m f=1 -3\n", options(1_000_000_000))).unwrap();
    assert_eq!(rows.keys().next().unwrap().2, -3_000_000_000);
    let error = rows_of(&open(b"m f=1 1700000000000000000\n", options(1000))).unwrap_err();
    assert!(error.to_string().contains("precision"), "{error}");
    assert!(rows_of(&open(b"m f=1 1\n", options(0))).is_err());
}

#[tokio::test]
async fn a_window_reads_its_own_rows_and_only_those() {
    let content: String = (0..20_000).map(|i| format!("m,h={} f={i} {}\n", i % 3, i / 4)).collect();
    let opened = open(content.as_bytes(), small(100_000));
    let source = &opened.source;
    let table = source.list().await.unwrap().tables.remove(0);
    assert_eq!(table.data_ranges, [Window { from: 0, to: 5000 }]);
    let window = Window { from: 1000, to: 4500 };
    let (mut all, mut some) = (Rows::new(), Rows::new());
    let batches_of = async |slice| batches(source, &table, slice).await.unwrap();
    for batch in batches_of(Slice::All).await {
        assert!(batch.num_rows() <= 8192);
        add_rows(&table, &batch, &mut all);
    }
    batches_of(Slice::Window(window)).await.iter().for_each(|b| add_rows(&table, b, &mut some));
    all.retain(|(_, _, time), _| window.contains(*time));
    assert_eq!(all, some);
    let counted = source.count(&table, window).await.unwrap();
    assert_eq!(counted, RowCount { rows: all.len() as u64, exact: true });
    let none = source.count(&table, Window { from: 5000, to: 6000 }).await.unwrap();
    assert_eq!(none.rows, 0);
}

#[tokio::test]
async fn another_file_of_the_same_name_is_refused() {
    let first = open(b"m f=1 1\n", small(1 << 20));
    let second = open(b"m f=2 1\n", small(1 << 20));
    let table = first.source.list().await.unwrap().tables.remove(0);
    let error = batches(&second.source, &table, Slice::All).await.unwrap_err();
    assert!(error.to_string().contains("is not the file that was listed"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_clear_error() {
    let missing = LineProtocolSource::new("x".into(), "/nowhere/x.lp".into(), Options::default());
    for error in [missing.describe().await.unwrap_err(), missing.list().await.unwrap_err()] {
        assert!(error.to_string().contains("/nowhere/x.lp"), "{error}");
        assert!(error.hint_text().is_some());
    }
    let directory = LineProtocolSource::new("x".into(), "/".into(), Options::default());
    assert!(directory.describe().await.is_err());
    let opened = open(b"", Options::default());
    let info = opened.source.describe().await.unwrap();
    assert!(info.address.starts_with("lp:/") && info.version == "line protocol");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_read() {
    let content: String = (0..50_000).map(|i| format!("m f={i} {i}\n")).collect();
    let opened = open(content.as_bytes(), small(1 << 20));
    let table = opened.source.list().await.unwrap().tables.remove(0);
    let chunk = Chunk { table: Arc::new(table), slice: Slice::All };
    let (sender, receiver) = BatchSender::channel(1);
    drop(receiver);
    assert!(opened.source.read(&chunk, sender).await.is_err());
}
