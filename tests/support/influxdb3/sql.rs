//! SQL of the stand-in: DataFusion over the tables in memory, with the catalog of InfluxDB 3 and its
//! limits, which are decided when a query is planned, so that `EXPLAIN` meets them, too.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemTable, MemoryCatalogProvider, SchemaProvider, Session, TableProvider,
};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::tables::{BATCH, unmark};
use super::{Options, Product, Scan, State, lock};

const SCHEMAS: [&str; 3] = ["iox", "system", "information_schema"];

/// Why a query does not run.
pub(super) enum Refusal {
    NoDatabase,
    /// The limit on partitions or files, with the text of the product.
    Limit(String),
    Plan(DataFusionError),
}

pub(super) struct Planned {
    pub(super) schema: SchemaRef,
    pub(super) scan: Scan,
    pub(super) batches: SendableRecordBatchStream,
}

/// As the older DataFusion of the real servers prints it.
pub(super) fn text(error: &DataFusionError) -> String {
    error.to_string().replace("\nValid fields are", " Valid fields are")
}

pub(super) fn too_many(limit: usize, what: &str) -> String {
    let text = format!("Query would process more than {limit} {what}");
    format!("Error while planning query: Resources exhausted: {text}")
}

/// Plans a query as somebody sent it, and begins it.
pub(super) async fn plan(
    state: &Arc<State>,
    options: &Options,
    database: &str,
    sql: &str,
) -> std::result::Result<Planned, Refusal> {
    if lock(&state.databases).contains_key(database) {
        refuse_early_literals(sql).map_err(Refusal::Plan)?;
    }
    plan_any(state, options, database, sql).await
}

/// The same for one that the server has made.
pub(super) async fn plan_any(
    state: &Arc<State>,
    options: &Options,
    database: &str,
    sql: &str,
) -> std::result::Result<Planned, Refusal> {
    if !lock(&state.databases).contains_key(database) {
        return Err(Refusal::NoDatabase);
    }
    let unread = Scan { sql: sql.to_owned(), from: i64::MAX, to: i64::MIN, ..Scan::default() };
    let query = Arc::new(Query {
        state: Arc::clone(state),
        options: options.clone(),
        database: database.to_owned(),
        scan: Mutex::new(unread),
        refusal: Mutex::default(),
    });
    let planned = begin(&query, sql).await;
    // An EXPLAIN would only print it.
    if let Some(text) = lock(&query.refusal).take() {
        return Err(Refusal::Limit(text));
    }
    let (schema, batches) = planned.map_err(Refusal::Plan)?;
    let scan = lock(&query.scan).clone();
    Ok(Planned { schema, scan, batches })
}

/// The real servers cannot read a literal of the first fraction of a second of all time: their seconds
/// alone are less than the least number of nanoseconds.
fn refuse_early_literals(sql: &str) -> Result<()> {
    for literal in sql.split("TIMESTAMP '").skip(1).filter_map(|rest| rest.split('\'').next()) {
        if literal.starts_with("1677-09-21T00:12:43") {
            let text = format!("Overflow converting {literal} to a timestamp in nanoseconds");
            return Err(DataFusionError::Plan(text));
        }
    }
    Ok(())
}

async fn begin(query: &Arc<Query>, sql: &str) -> Result<(SchemaRef, SendableRecordBatchStream)> {
    // Its own information_schema would name types as DataFusion does now.
    let config = SessionConfig::new()
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema("public", "iox")
        .with_batch_size(BATCH)
        .with_target_partitions(2);
    let context = SessionContext::new_with_config(config);
    let catalog = MemoryCatalogProvider::new();
    for name in SCHEMAS {
        catalog.register_schema(name, Arc::new(Schema { query: Arc::clone(query), name }))?;
    }
    context.register_catalog("public", Arc::new(catalog));
    let allowed =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, allowed).await?;
    let tasks = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    let batches = execute_stream(plan, tasks)?;
    Ok((unmark(&batches.schema()), batches))
}

#[derive(Debug)]
struct Schema {
    query: Arc<Query>,
    name: &'static str,
}

/// What the tables of a query share.
struct Query {
    state: Arc<State>,
    options: Options,
    database: String,
    scan: Mutex<Scan>,
    refusal: Mutex<Option<String>>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("database", &self.database).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        self.query.names(self.name)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !self.table_exist(name) {
            return Ok(None);
        }
        if self.name == "iox" {
            let databases = lock(&self.query.state.databases);
            let table = databases.get(&self.query.database).and_then(|d| d.tables.get(name));
            let Some(schema) = table.map(|table| table.schema()) else { return Ok(None) };
            let (query, name) = (Arc::clone(&self.query), name.to_owned());
            return Ok(Some(Arc::new(Stored { query, name, schema })));
        }
        let rows = match name {
            "parquet_files" => self.query.parquet_files()?,
            "columns" => self.query.columns()?,
            _ => self.query.tables()?,
        };
        Ok(Some(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}

fn texts<T: Into<String>>(values: impl Iterator<Item = T>) -> Arc<StringArray> {
    Arc::new(StringArray::from_iter_values(values.map(Into::into)))
}

impl Query {
    /// The tables of a schema.
    fn names(&self, schema: &str) -> Vec<String> {
        match schema {
            "iox" => lock(&self.state.databases)
                .get(&self.database)
                .map(|database| database.tables.keys().cloned().collect())
                .unwrap_or_default(),
            "system" if self.state.product == Product::Core => vec!["parquet_files".to_owned()],
            "information_schema" => vec!["columns".to_owned(), "tables".to_owned()],
            _ => Vec::new(),
        }
    }

    fn tables(&self) -> Result<RecordBatch> {
        let mut listed = Vec::new();
        for schema in SCHEMAS {
            let kind = if schema == "information_schema" { "VIEW" } else { "BASE TABLE" };
            listed.extend(self.names(schema).into_iter().map(|name| (schema, name, kind)));
        }
        Ok(RecordBatch::try_from_iter([
            ("table_catalog", texts(listed.iter().map(|_| "public")) as _),
            ("table_schema", texts(listed.iter().map(|table| table.0)) as _),
            ("table_name", texts(listed.iter().map(|table| table.1.as_str())) as _),
            ("table_type", texts(listed.iter().map(|table| table.2)) as _),
        ])?)
    }

    /// Only of the user's tables and `system.parquet_files`, with the columns that say something.
    fn columns(&self) -> Result<RecordBatch> {
        let mut schemas: Vec<(&str, String, SchemaRef)> = Vec::new();
        if let Some(database) = lock(&self.state.databases).get(&self.database) {
            let tables = database.tables.iter();
            schemas.extend(tables.map(|(name, table)| ("iox", name.clone(), table.schema())));
        }
        if self.state.product == Product::Core {
            schemas.push(("system", "parquet_files".into(), self.parquet_files()?.schema()));
        }
        let fields: Vec<_> = schemas
            .iter()
            .flat_map(|(schema, table, arrow)| {
                let fields = arrow.fields().iter().enumerate();
                fields.map(move |(place, field)| (*schema, table.as_str(), place, field))
            })
            .collect();
        let yes_no = |yes| if yes { "YES" } else { "NO" };
        let places = fields.iter().map(|column| column.2 as u64);
        Ok(RecordBatch::try_from_iter([
            ("table_catalog", texts(fields.iter().map(|_| "public")) as _),
            ("table_schema", texts(fields.iter().map(|column| column.0)) as _),
            ("table_name", texts(fields.iter().map(|column| column.1)) as _),
            ("column_name", texts(fields.iter().map(|column| column.3.name())) as _),
            ("ordinal_position", Arc::new(UInt64Array::from_iter_values(places)) as _),
            (
                "column_default",
                Arc::new(StringArray::from_iter(fields.iter().map(|_| None::<&str>))) as _,
            ),
            ("is_nullable", texts(fields.iter().map(|c| yes_no(c.3.is_nullable()))) as _),
            ("data_type", texts(fields.iter().map(|c| type_name(c.3.data_type()))) as _),
        ])?)
    }

    fn parquet_files(&self) -> Result<RecordBatch> {
        let databases = lock(&self.state.databases);
        let tables = databases.get(&self.database).into_iter().flat_map(|d| d.tables.iter());
        let files: Vec<_> = tables
            .flat_map(|(name, table)| table.files.iter().map(move |file| (name, file.0, file.1)))
            .collect();
        let paths = files.iter().map(|(name, chunk, _)| format!("node/dbs/{name}/{chunk}.parquet"));
        let sizes = files.iter().map(|(.., file)| 1000 + 20 * file.rows);
        let rows = files.iter().map(|(.., file)| file.rows);
        Ok(RecordBatch::try_from_iter([
            ("table_name", texts(files.iter().map(|file| file.0)) as _),
            ("path", texts(paths) as _),
            ("size_bytes", Arc::new(UInt64Array::from_iter_values(sizes)) as _),
            ("row_count", Arc::new(UInt64Array::from_iter_values(rows)) as _),
            (
                "min_time",
                Arc::new(Int64Array::from_iter_values(files.iter().map(|f| f.2.min))) as _,
            ),
            (
                "max_time",
                Arc::new(Int64Array::from_iter_values(files.iter().map(|f| f.2.max))) as _,
            ),
        ])?)
    }

    fn limit(&self, scan: &Scan) -> Option<String> {
        let (partitions, files) = (self.options.partitions, self.options.parquet_files);
        if let Some(limit) = partitions.filter(|limit| scan.partitions > *limit) {
            return Some(too_many(limit, "partitions"));
        }
        let limit = files.filter(|limit| scan.files > *limit)?;
        if self.state.product != Product::Core {
            return Some(too_many(limit, "parquet files"));
        }
        Some(format!(
            "Error while planning query: External error: Query would exceed file limit of {limit} \
             parquet files. Please specify a smaller time range for your query. You can increase \
             the file limit with the `--query-file-limit` option in the serve command, however, \
             query performance will be slower and the server may get OOM killed or become \
             unstable as a result"
        ))
    }
}

/// As the DataFusion of the real servers prints it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(unit, None) => format!("Timestamp({unit:?}, None)"),
        DataType::Timestamp(unit, Some(zone)) => format!("Timestamp({unit:?}, Some(\"{zone}\"))"),
        other => other.to_string(),
    }
}

#[derive(Debug)]
struct Stored {
    query: Arc<Query>,
    name: String,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Stored {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Days that cannot match are left out; the rows are filtered by the engine.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut range = (i64::MIN, i64::MAX);
        filters.iter().for_each(|filter| narrow(filter, &mut range));
        let mut databases = lock(&self.query.state.databases);
        let Some(database) = databases.get_mut(&self.query.database) else {
            return Err(DataFusionError::Plan(format!("no database {}", self.query.database)));
        };
        let oldest = database.retention.map_or(i64::MIN, now_minus);
        let Some(table) = database.tables.get_mut(&self.name) else {
            return Err(DataFusionError::Plan(format!("no table {}", self.name)));
        };

        let extent = table.extent((range.0.max(oldest), range.1));
        let mut scan = lock(&self.query.scan);
        (scan.from, scan.to) = (scan.from.min(range.0), scan.to.max(range.1));
        scan.rows += extent.rows;
        scan.partitions += extent.days;
        scan.files += match self.query.state.product {
            Product::Core => extent.files,
            _ => extent.days * self.query.options.files_per_day,
        };
        if let Some(text) = self.query.limit(&scan) {
            *lock(&self.query.refusal) = Some(text.clone());
            return Err(DataFusionError::ResourcesExhausted(text));
        }

        let days = table.scan(range, oldest);
        let projected = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        if days.is_empty() {
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        // Two streams, so that the order of rows cannot be relied on.
        let mut partitions = vec![Vec::new(), Vec::new()];
        for (number, batch) in days.into_iter().flatten().enumerate() {
            partitions[number % 2].push(batch);
        }
        // A column may have come since the query began to be planned.
        let schema = partitions[0].first().map_or(self.schema.clone(), RecordBatch::schema);
        let columns = self.schema.fields().iter().map(|field| schema.index_of(field.name()));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        for batch in partitions.iter_mut().flatten() {
            *batch = batch.project(&columns)?;
        }
        let schema = Arc::clone(&self.schema);
        Ok(MemorySourceConfig::try_new_exec(&partitions, schema, projection.cloned())?)
    }
}

fn now_minus(age: Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(age).as_nanos().try_into().unwrap_or(i64::MAX)
}

/// Narrows the range (both inclusive) to what this filter of `time` leaves, if it is one.
fn narrow(filter: &Expr, range: &mut (i64, i64)) {
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::And => {
            narrow(&binary.left, range);
            narrow(&binary.right, range);
        }
        Expr::BinaryExpr(binary) => match (time(&binary.left), time(&binary.right)) {
            (None, Some(value)) if is_time(&binary.left) => bound(binary.op, value, range),
            (Some(value), None) if is_time(&binary.right) => {
                if let Some(op) = binary.op.swap() {
                    bound(op, value, range);
                }
            }
            _ => {}
        },
        Expr::Between(between) if !between.negated && is_time(&between.expr) => {
            if let (Some(low), Some(high)) = (time(&between.low), time(&between.high)) {
                bound(Operator::GtEq, low, range);
                bound(Operator::LtEq, high, range);
            }
        }
        _ => {}
    }
}

fn bound(op: Operator, value: i64, range: &mut (i64, i64)) {
    // The ends of i64 are no times that InfluxDB takes.
    match op {
        Operator::Eq => *range = (range.0.max(value), range.1.min(value)),
        Operator::GtEq => range.0 = range.0.max(value),
        Operator::Gt => range.0 = range.0.max(value.saturating_add(1)),
        Operator::LtEq => range.1 = range.1.min(value),
        Operator::Lt => range.1 = range.1.min(value.saturating_sub(1)),
        _ => {}
    }
}

fn is_time(expression: &Expr) -> bool {
    matches!(expression, Expr::Column(column) if column.name == "time")
}

fn time(expression: &Expr) -> Option<i64> {
    match expression {
        Expr::Literal(ScalarValue::TimestampNanosecond(value, _), _) => *value,
        _ => None,
    }
}
