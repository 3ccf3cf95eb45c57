//! PURE: the Parquet schema of a table, and the names of Parquet's types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{LogicalType, TimeUnit};
use parquet::errors::Result;
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::model::{Column, Logical};

/// The schema of files with these columns. It has logical types that Arrow's own schema knows only as extension types. The
/// Arrow schema in the file omits these: Polars cannot work with such columns, and some of its versions cannot even read
/// the file, while pyarrow takes the types from Parquet's schema.
pub(super) fn parquet_schema(arrow: &Schema, columns: &[Column]) -> Result<SchemaDescriptor> {
    let plain = ArrowSchemaConverter::new().convert(arrow)?;
    let pairs = columns.iter().zip(plain.root_schema().get_fields());
    let fields = pairs.map(|(column, plain)| match column.logical {
        Some(logical) => annotated(&column.data_type, logical, plain),
        None => Ok(Arc::clone(plain)),
    });
    let fields = fields.collect::<Result<_>>()?;
    let root = Type::group_type_builder(plain.name()).with_fields(fields).build()?;
    Ok(SchemaDescriptor::new(Arc::new(root)))
}

/// The type with this logical type, or unchanged if it cannot have it.
fn annotated(arrow: &DataType, logical: Logical, plain: &TypePtr) -> Result<TypePtr> {
    let logical = match (logical, arrow, plain.is_group().then(|| plain.get_fields())) {
        (Logical::Uuid, DataType::FixedSizeBinary(16), None) => LogicalType::Uuid,
        (Logical::Json, DataType::Utf8, None) => LogicalType::Json,
        (_, DataType::List(element), Some([list])) if list.is_group() => {
            let [inner] = list.get_fields() else { return Ok(Arc::clone(plain)) };
            let inner = annotated(element.data_type(), logical, inner)?;
            return with_field(plain, with_field(list, inner)?);
        }
        _ => return Ok(Arc::clone(plain)),
    };
    let Type::PrimitiveType { basic_info, physical_type, type_length, .. } = &**plain else {
        return Ok(Arc::clone(plain));
    };
    let built = Type::primitive_type_builder(basic_info.name(), *physical_type)
        .with_repetition(basic_info.repetition())
        .with_length(*type_length)
        .with_logical_type(Some(logical))
        .build()?;
    Ok(Arc::new(built))
}

/// A copy of a group in which another field replaces its only one.
fn with_field(group: &Type, only: TypePtr) -> Result<TypePtr> {
    let info = group.get_basic_info();
    let built = Type::group_type_builder(info.name())
        .with_repetition(info.repetition())
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(vec![only])
        .build()?;
    Ok(Arc::new(built))
}

/// The name of a Parquet type: `INT64 TIMESTAMP(MICROS,true)`, `LIST<BYTE_ARRAY STRING>`.
pub fn type_name(found: &Type) -> String {
    let logical = found.get_basic_info().logical_type_ref();
    match found {
        Type::PrimitiveType { physical_type, type_length, .. } => {
            let length = match physical_type {
                parquet::basic::Type::FIXED_LEN_BYTE_ARRAY => format!("({type_length})"),
                _ => String::new(),
            };
            let logical = logical.map(|logical| format!(" {}", logical_name(logical)));
            format!("{physical_type}{length}{}", logical.unwrap_or_default())
        }
        Type::GroupType { fields, .. } => match (logical, &fields[..]) {
            (Some(LogicalType::List), [list]) if list.is_group() => {
                let element = list.get_fields().iter().map(|element| type_name(element));
                format!("LIST<{}>", element.collect::<Vec<_>>().join(", "))
            }
            _ => {
                let fields = fields.iter().map(|f| format!("{} {}", f.name(), type_name(f)));
                format!("GROUP<{}>", fields.collect::<Vec<_>>().join(", "))
            }
        },
    }
}

fn logical_name(logical: &LogicalType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => "MILLIS",
        TimeUnit::MICROS => "MICROS",
        TimeUnit::NANOS => "NANOS",
    };
    match logical {
        LogicalType::String => "STRING".to_owned(),
        LogicalType::Json => "JSON".to_owned(),
        LogicalType::Uuid => "UUID".to_owned(),
        LogicalType::Date => "DATE".to_owned(),
        LogicalType::Integer(kind) => format!("INTEGER({},{})", kind.bit_width, kind.is_signed),
        LogicalType::Decimal(kind) => format!("DECIMAL({},{})", kind.precision, kind.scale),
        LogicalType::Timestamp(kind) => {
            format!("TIMESTAMP({},{})", unit(&kind.unit), kind.is_adjusted_to_u_t_c)
        }
        LogicalType::Time(kind) => {
            format!("TIME({},{})", unit(&kind.unit), kind.is_adjusted_to_u_t_c)
        }
        other => format!("{other:?}").to_uppercase(), // none of these is written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;
    use arrow::datatypes::{Field, TimeUnit};

    #[test]
    fn each_type_has_a_name_and_some_columns_a_logical_type() {
        let list = |kind| DataType::List(Arc::new(Field::new("element", kind, true)));
        let bytes = DataType::FixedSizeBinary(16);
        let (uuid, json) = (Some(Logical::Uuid), Some(Logical::Json));
        let interval = DataType::Struct(vec![Field::new("months", DataType::Int32, false)].into());
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let all = [
            (bytes.clone(), uuid, "FIXED_LEN_BYTE_ARRAY(16) UUID"),
            (bytes.clone(), None, "FIXED_LEN_BYTE_ARRAY(16)"),
            (DataType::Utf8, json, "BYTE_ARRAY JSON"),
            (DataType::Utf8, None, "BYTE_ARRAY STRING"),
            // A value that could not be had as text has made these of them.
            (DataType::Binary, json, "BYTE_ARRAY"),
            (DataType::Utf8, uuid, "BYTE_ARRAY STRING"),
            (list(bytes), uuid, "LIST<FIXED_LEN_BYTE_ARRAY(16) UUID>"),
            (list(DataType::Utf8), None, "LIST<BYTE_ARRAY STRING>"),
            (interval, None, "GROUP<months INT32>"),
            (micros, None, "INT64 TIMESTAMP(MICROS,true)"),
            (DataType::Int16, None, "INT32 INTEGER(16,true)"),
            (DataType::Decimal128(10, 2), None, "INT64 DECIMAL(10,2)"),
        ];
        let column = |(at, (kind, logical, _)): (usize, &(DataType, _, _))| Column {
            logical: *logical,
            ..Column::new(format!("c{at}"), "", Role::Column, "", kind.clone())
        };
        let columns: Vec<Column> = all.iter().enumerate().map(column).collect();
        let fields = columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true));
        let schema = parquet_schema(&Schema::new(fields.collect::<Vec<_>>()), &columns).unwrap();
        let found = schema.root_schema().get_fields().iter().map(|field| type_name(field));
        assert!(found.eq(all.iter().map(|(.., expected)| *expected)));
    }
}
