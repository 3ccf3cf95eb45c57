//! PURE: checks whether the rows of a file are in order of time, by the rows themselves and not by the promise of a source.
//! It is used while writing and again while verifying.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};

/// Checks the times of a file, batch by batch.
#[derive(Debug, Clone, Copy)]
pub struct TimeOrder {
    last: i64,
    holds: bool,
}

impl Default for TimeOrder {
    fn default() -> Self {
        Self { last: i64::MIN, holds: true }
    }
}

impl TimeOrder {
    /// Checks the next times, unless an earlier one was out of order or missing.
    pub fn see(&mut self, times: &ArrayRef) {
        if !self.holds || times.is_empty() {
            return;
        }
        self.holds = times.null_count() == 0
            && match times.data_type() {
                DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                    self.follows(times.as_primitive::<TimestampNanosecondType>().values())
                }
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    self.follows(times.as_primitive::<TimestampMicrosecondType>().values())
                }
                DataType::Date32 => self.follows(times.as_primitive::<Date32Type>().values()),
                _ => false,
            };
    }

    fn follows<T: Copy + Ord + Into<i64>>(&mut self, times: &[T]) -> bool {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return true };
        let before = std::mem::replace(&mut self.last, (*last).into());
        before <= (*first).into() && times.is_sorted()
    }

    /// Whether no time was earlier than the one before it.
    pub fn holds(&self) -> bool {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{Date32Array, StringArray, TimestampNanosecondArray};

    fn of(batches: &[&[Option<i64>]]) -> bool {
        let mut order = TimeOrder::default();
        for batch in batches {
            let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(batch.to_vec()));
            order.see(&times);
        }
        order.holds()
    }

    #[test]
    fn one_time_out_of_order_is_enough() {
        assert!(of(&[]) && of(&[&[Some(i64::MIN), Some(5)], &[], &[Some(5), Some(i64::MAX)]]));
        assert!(!of(&[&[Some(5), Some(4)], &[Some(6)]]), "within a batch");
        assert!(!of(&[&[Some(5)], &[Some(4)]]), "between two");
        assert!(!of(&[&[Some(5), None]]), "a null has no place");
        let seen = |times: ArrayRef| {
            let mut order = TimeOrder::default();
            order.see(&times);
            order.holds()
        };
        assert!(seen(Arc::new(Date32Array::from(vec![-1, 0, 7]))));
        assert!(!seen(Arc::new(Date32Array::from(vec![0, -1]))));
        assert!(!seen(Arc::new(StringArray::from(vec!["a"]))), "no time that is known");
    }
}
