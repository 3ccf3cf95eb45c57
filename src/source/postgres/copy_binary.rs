//! SYNC, the streaming path: cuts the data of `COPY … (FORMAT binary)` into rows. A stream is complete only with its
//! trailer.

/// The beginning of the data: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The largest buffer for rows that arrive in pieces that is kept for the next one.
const KEPT_BYTES: usize = 1 << 20;

/// Cuts the data into rows. Servers send each row in its own message, but the protocol does not require it.
pub(crate) struct Copy {
    columns: usize,
    began: bool,
    ended: bool,
    rows: u64,
    carry: Vec<u8>,
}

/// The data violate the format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Copy {
    /// Expects rows of this many columns.
    pub(crate) fn new(columns: usize) -> Self {
        Self { columns, began: false, ended: false, rows: 0, carry: Vec::new() }
    }

    /// The number of rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether the trailer has arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended && self.carry.is_empty()
    }

    /// Takes the next bytes and passes on the fields of each row that is complete.
    #[inline]
    pub(crate) fn feed<E: From<Malformed>>(
        &mut self,
        data: &[u8],
        row: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.carry.is_empty() {
            let used = self.cut(data, row)?;
            self.carry.extend_from_slice(&data[used..]);
            return Ok(());
        }
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(data);
        let used = self.cut(&carry, row)?;
        carry.drain(..used);
        // The row after a huge one is usually not as large.
        if carry.is_empty() && carry.capacity() > KEPT_BYTES {
            carry = Vec::new();
        }
        self.carry = carry;
        Ok(())
    }

    /// Returns the length of the complete rows.
    #[inline]
    fn cut<E: From<Malformed>>(
        &mut self,
        data: &[u8],
        mut row: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        if !self.began {
            let Some(end) = header(data)? else { return Ok(0) };
            (at, self.began) = (end, true);
        }
        while let Some(&[a, b]) = data.get(at..at + 2).and_then(|head| head.first_chunk::<2>()) {
            let count = i16::from_be_bytes([a, b]);
            if self.ended || (count != -1 && usize::try_from(count) != Ok(self.columns)) {
                return Err(Malformed.into());
            }
            if count == -1 {
                self.ended = true;
                at += 2;
                continue;
            }
            let Some(end) = row_end(data, at + 2, self.columns)? else { break };
            row(&data[at + 2..end])?;
            self.rows += 1;
            at = end;
        }
        Ok(at)
    }
}

/// Where the header ends; `None` if it has not arrived completely.
fn header(data: &[u8]) -> Result<Option<usize>, Malformed> {
    let there = data.len().min(SIGNATURE.len());
    if data[..there] != SIGNATURE[..there] {
        return Err(Malformed);
    }
    let Some(length) = data.get(15..19).and_then(|bytes| bytes.first_chunk::<4>()) else {
        return Ok(None);
    };
    let end = 19 + u32::from_be_bytes(*length) as usize;
    Ok((data.len() >= end).then_some(end))
}

/// Where the row that begins at `at` ends; `None` if it has not arrived completely.
#[inline]
fn row_end(data: &[u8], mut at: usize, columns: usize) -> Result<Option<usize>, Malformed> {
    for _ in 0..columns {
        let Some(length) = data.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()) else {
            return Ok(None);
        };
        at += 4;
        match i32::from_be_bytes(*length) {
            -1 => {}
            length => at += usize::try_from(length).map_err(|_| Malformed)?,
        }
    }
    Ok((at <= data.len()).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    struct Bad;

    impl From<Malformed> for Bad {
        fn from(_: Malformed) -> Self {
            Self
        }
    }

    fn stream(rows: &[Vec<u8>], trailer: bool) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        for row in rows {
            bytes.extend(1i16.to_be_bytes());
            bytes.extend((row.len() as i32).to_be_bytes());
            bytes.extend(row);
        }
        if trailer {
            bytes.extend((-1i16).to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<Vec<u8>>, bool), Bad> {
        let (mut copy, mut found, mut from) = (Copy::new(1), Vec::new(), 0);
        let ends = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]);
        for end in ends {
            if end < from {
                continue;
            }
            copy.feed(&bytes[from..end], |row| {
                found.push(row[4..].to_vec());
                Ok::<_, Bad>(())
            })?;
            from = end;
        }
        assert_eq!(copy.rows(), found.len() as u64);
        Ok((found, copy.is_complete()))
    }

    proptest! {
        #[test]
        fn rows_do_not_depend_on_where_messages_end(
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            mut cuts in prop::collection::vec(any::<usize>(), 0..10),
        ) {
            let bytes = stream(&rows, true);
            cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
            cuts.sort_unstable();
            prop_assert_eq!(read(&bytes, &cuts), Ok((rows, true)));
        }

        #[test]
        fn a_truncated_stream_is_not_complete(
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            missing in 1usize..60,
        ) {
            let bytes = stream(&rows, true);
            let cut = &bytes[..bytes.len().saturating_sub(missing)];
            prop_assert!(!read(cut, &[]).is_ok_and(|(_, complete)| complete));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes, &[7]);
            let mut behind = stream(&[], false);
            behind.extend(bytes);
            let _ = read(&behind, &[25]);
        }
    }

    #[test]
    fn nothing_comes_after_the_trailer() {
        let mut bytes = stream(&[vec![1]], true);
        bytes.extend([0, 1]);
        assert_eq!(read(&bytes, &[]), Err(Bad));
    }
}
