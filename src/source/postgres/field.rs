//! PURE: the fields of a row in PostgreSQL's binary format, and its `numeric`.

use crate::source::relational::type_overrides::TypeOverride;

/// Why a value cannot be added to its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The bytes are not a value of the column's type.
    Malformed,
    /// The column's type in the archive has no such value.
    TooNarrow(TypeOverride),
}

/// Rejects a value that the type in the archive cannot hold, so that the column becomes text.
pub(super) fn too_narrow(value: &'static str) -> Rejected {
    Rejected::TooNarrow(TypeOverride::Text(value))
}

/// A value (`None` for null) and the bytes after it; `None` if the bytes end too soon.
#[inline]
pub(super) fn field(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Err(_) => Some((None, rest)),
        Ok(length) => rest.split_at_checked(length).map(|(value, rest)| (Some(value), rest)),
    }
}

#[inline]
pub(super) fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Rejected> {
    value.try_into().map_err(|_| Rejected::Malformed)
}

/// Converts a `numeric`, whose digits are in base 10,000 and whose first digit has a weight, into an integer with `scale`
/// decimals.
pub(super) fn decimal(value: &[u8], precision: u8, scale: i8) -> Result<i128, Rejected> {
    let too_large = too_narrow("a number with more digits than were declared");
    let (head, digits) = value.split_first_chunk::<8>().ok_or(Rejected::Malformed)?;
    let short = |at: usize| i16::from_be_bytes([head[at], head[at + 1]]);
    let (count, weight) = (i32::from(short(0)), i32::from(short(2)));
    let negative = match short(4).cast_unsigned() {
        0x0000 => false,
        0x4000 => true,
        0xc000 => return Err(too_narrow("NaN")),
        0xd000 | 0xf000 => return Err(too_narrow("infinity")),
        _ => return Err(Rejected::Malformed),
    };
    if digits.len() != 2 * usize::try_from(count).map_err(|_| Rejected::Malformed)? {
        return Err(Rejected::Malformed);
    }
    let mut number: i128 = 0;
    // The power of ten of the next digit, relative to the scale.
    let mut exponent = 4 * weight + i32::from(scale) + 4;
    for digit in digits.chunks_exact(2) {
        let digit = i128::from(i16::from_be_bytes([digit[0], digit[1]]));
        if !(0..10_000).contains(&digit) {
            return Err(Rejected::Malformed);
        }
        exponent -= 4;
        // The last digit in base 10,000 may reach beyond the scale, where it has only zeros.
        let (base, digit) = match exponent {
            0.. => (10_000, digit),
            -3..0 => {
                let beyond = 10i128.pow(exponent.unsigned_abs());
                if digit % beyond != 0 {
                    return Err(too_large);
                }
                (10_000 / beyond, digit / beyond)
            }
            _ if digit == 0 => continue,
            _ => return Err(too_large),
        };
        let next = number.checked_mul(base).and_then(|number| number.checked_add(digit));
        number = next.ok_or(too_large)?;
    }
    if number != 0 && exponent > 0 {
        let power = 10i128.checked_pow(exponent.unsigned_abs());
        number = power.and_then(|power| number.checked_mul(power)).ok_or(too_large)?;
    }
    if number.unsigned_abs() >= 10u128.pow(u32::from(precision.min(38))) {
        return Err(too_large);
    }
    Ok(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes a number like the server's `numeric_send`.
    fn numeric(unscaled: i128, scale: u32) -> Vec<u8> {
        let text = format!("{:0>1$}", unscaled.unsigned_abs(), scale as usize + 1);
        let (whole, fraction) = text.split_at(text.len() - scale as usize);
        let whole = format!("{:0>1$}", whole, whole.len().div_ceil(4) * 4);
        let fraction = format!("{:0<1$}", fraction, fraction.len().div_ceil(4) * 4);
        let weight = whole.len() as i16 / 4 - 1;
        let all: Vec<i16> = (whole + &fraction)
            .as_bytes()
            .chunks(4)
            .map(|four| std::str::from_utf8(four).unwrap().parse().unwrap())
            .collect();
        let leading = all.iter().take_while(|digit| **digit == 0).count();
        let mut digits = all[leading..].to_vec();
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let weight = if digits.is_empty() { 0 } else { weight - leading as i16 };
        let sign: u16 = if unscaled < 0 { 0x4000 } else { 0 };
        let mut bytes = Vec::new();
        bytes.extend((digits.len() as i16).to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend((scale as i16).to_be_bytes());
        digits.iter().for_each(|digit| bytes.extend(digit.to_be_bytes()));
        bytes
    }

    #[test]
    fn a_numeric_that_a_decimal_cannot_hold_is_rejected() {
        let not_a_number = vec![0, 0, 0, 0, 0xc0, 0, 0, 0];
        for value in [numeric(10_000, 2), numeric(1, 3), not_a_number] {
            assert!(matches!(decimal(&value, 4, 2), Err(Rejected::TooNarrow(_))));
        }
    }

    #[test]
    fn a_numeric_with_digits_beyond_its_base_is_malformed() {
        for digit in [-1i16, 10_000] {
            let head = [0, 1, 0, 0, 0, 0, 0, 0];
            let value = [&head[..], &digit.to_be_bytes()].concat();
            assert_eq!(decimal(&value, 10, 2), Err(Rejected::Malformed), "{digit}");
        }
    }

    proptest! {
        #[test]
        fn a_numeric_comes_back_digit_by_digit(
            unscaled in -(10i128.pow(37))..10i128.pow(37), shift in 0u32..37, scale in 0u32..38
        ) {
            let unscaled = unscaled / 10i128.pow(shift);
            prop_assert_eq!(decimal(&numeric(unscaled, scale), 38, scale as i8), Ok(unscaled));
        }
    }
}
