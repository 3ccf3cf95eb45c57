//! Turns the merged points of one table into record batches of a bounded size and sends them on.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::{Role, Table};
use crate::source::channel::BatchSender;
use crate::source::influxdb::points::PointBuilder;
use crate::source::line_protocol::cells::{Cells, damaged};
use crate::source::line_protocol::schema::Slot;
use crate::source::line_protocol::spool::Sink;
use crate::source::line_protocol::tags;
use crate::window::Window;

const MOST_ROWS: usize = 8192;
const MOST_BYTES: usize = 2 << 20;

/// Builds batches from the points of a window.
pub(super) struct Batches<'a> {
    builder: PointBuilder,
    /// The column of each slot.
    fields: Vec<usize>,
    /// The column of each tag.
    tags: HashMap<&'a str, usize>,
    window: Window,
    sender: BatchSender,
    /// The tags of this series, by column.
    series: Vec<(usize, String)>,
    /// The rows of this series whose tags are not in the builder yet.
    untagged: usize,
    /// All points that arrived, including those outside of the window.
    pub(super) seen: u64,
}

impl<'a> Batches<'a> {
    pub(super) fn new(
        table: &'a Table,
        slots: &[Slot],
        window: Window,
        sender: BatchSender,
    ) -> Result<Self> {
        let fields = slots.iter().map(|slot| column_of(table, slot)).collect::<Result<_>>()?;
        let columns = table.columns.iter().enumerate();
        let tags = columns.filter(|(_, column)| column.role == Role::Tag);
        Ok(Self {
            builder: PointBuilder::new(table.arrow_schema()),
            fields,
            tags: tags.map(|(at, column)| (column.key.as_str(), at)).collect(),
            window,
            sender,
            series: Vec::new(),
            untagged: 0,
            seen: 0,
        })
    }

    fn tag_rows(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.untagged);
        if rows == 0 {
            return Ok(());
        }
        self.series.iter().try_for_each(|(column, value)| self.builder.tag(*column, value, rows))
    }

    fn send(&mut self) -> Result<()> {
        self.tag_rows()?;
        self.sender.blocking_send(self.builder.finish()?)
    }

    /// Sends the remaining rows.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.builder.rows() == 0 { Ok(()) } else { self.send() }
    }
}

fn column_of(table: &Table, slot: &Slot) -> Result<usize> {
    let is = |role, key: &str, kind: &str| {
        role == Role::Field && key == slot.name && kind == slot.kind.as_str()
    };
    table
        .columns
        .iter()
        .position(|column| is(column.role, &column.key, &column.source_type))
        .ok_or_else(|| unlisted(table, &slot.name))
}

fn unlisted(table: &Table, name: &str) -> Error {
    Error::stop(format!("reading {}: the listing does not show `{name}`", table.id))
        .hint("list the tables again")
}

impl Sink for Batches<'_> {
    fn series(&mut self, tags: &[u8]) -> Result<()> {
        self.tag_rows()?;
        self.series.clear();
        for (key, value) in tags::decode(tags).ok_or_else(damaged)? {
            let column = self.tags.get(key.as_str()).copied();
            self.series.push((column.ok_or_else(damaged)?, value));
        }
        Ok(())
    }

    fn point(&mut self, time: i64, cells: &[u8]) -> Result<()> {
        self.seen += 1;
        if !self.window.contains(time) {
            return Ok(());
        }
        self.builder.row(time);
        self.untagged += 1;
        for cell in Cells(cells) {
            let cell = cell?;
            let column = self.fields.get(cell.slot).copied().ok_or_else(damaged)?;
            self.builder.field(column, cell.value()?)?;
        }
        if self.builder.rows() >= MOST_ROWS || self.builder.size_bytes() >= MOST_BYTES {
            self.send()
        } else {
            Ok(())
        }
    }
}
