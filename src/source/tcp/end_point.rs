//! PURE: the hash that binds a login to the certificate of a server: `tls-server-end-point` of
//! <https://www.rfc-editor.org/rfc/rfc5929#section-4>.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// The object identifiers of signatures with RSA and with elliptic curves, without the last byte, which names the hash.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];

/// Hashes a certificate with the function that its signature uses, or with SHA-256 if that one is weaker. `None` if the
/// signature uses no hash, such as Ed25519, or one that the standard does not mention.
pub(crate) fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, whole, _) = value(certificate)?;
    let (_, _, after_what_is_signed) = value(whole)?;
    let (_, algorithm, _) = value(after_what_is_signed)?;
    let (_, name, _) = value(algorithm)?;
    let (last, family) = name.split_last()?;
    match (family, last) {
        (RSA, 4 | 5 | 11) | (ECDSA, 2) => Some(Sha256::digest(certificate).to_vec()),
        (RSA, 12) | (ECDSA, 3) => Some(Sha384::digest(certificate).to_vec()),
        (RSA, 13) | (ECDSA, 4) => Some(Sha512::digest(certificate).to_vec()),
        _ => (name == ECDSA_SHA1).then(|| Sha256::digest(certificate).to_vec()),
    }
}

/// The first value in DER: its tag, its content, and the bytes after it.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let sequence = |content: &[u8]| [&[0x30, 0x81, content.len() as u8], content].concat();
        let name = [&[6, algorithm.len() as u8], algorithm].concat();
        sequence(&[sequence(&[7; 90]), sequence(&name), vec![3, 1, 0]].concat())
    }

    #[test]
    fn the_signature_decides_the_hash() {
        let length = |algorithm: &[u8]| hash(&certificate(algorithm)).map(|hash| hash.len());
        assert_eq!(length(&[RSA, &[5]].concat()), Some(32), "SHA-1 is too weak");
        assert_eq!(length(&[RSA, &[12]].concat()), Some(48));
        assert_eq!(length(&[ECDSA, &[4]].concat()), Some(64));
        assert_eq!(length(&[0x2b, 0x65, 0x70]), None, "Ed25519");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = hash(&bytes);
            let _ = hash(&[&[0x30, 38], &bytes[..]].concat());
        }
    }
}
