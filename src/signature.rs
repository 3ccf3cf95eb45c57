//! The signature of an archive: one of its tag manifest, in the form that the program `minisign` checks. One over those
//! few lines covers every byte of the archive.

use std::fmt;
use std::io::Cursor;

use bytes::Bytes;
use ct_codecs::{Base64, Decoder};
use minisign::{PublicKey, SecretKey, SecretKeyBox};

use crate::error::{Error, Result};
use crate::model::Verdict;

/// A secret key of minisign, ready to sign.
pub struct SigningKey(SecretKey);

// Never what is in it.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    /// Reads a key as `minisign -G` writes it. One with a password takes about a second and 1 GiB of memory, which is
    /// minisign's own choice.
    pub fn read(text: &str, password: Option<String>) -> Result<Self, String> {
        let locked = || SecretKeyBox::from_string(text).map_err(|error| error.to_string());
        let open = locked()?.into_unencrypted_secret_key().ok().or_else(|| without_checksum(text));
        let key = match (open, password) {
            (Some(key), _) => key,
            // The library would ask the terminal for it.
            (None, None) => {
                return Err("it has a password, or is no secret key of minisign".to_owned());
            }
            (None, Some(password)) => {
                locked()?.into_secret_key(Some(password)).map_err(|error| error.to_string())?
            }
        };
        let key = Self(key);
        // One that was damaged signs what nobody can check.
        key.sign(b"", "").map_err(|error| error.to_string())?;
        Ok(key)
    }

    /// The signature of a tag manifest. The trusted comment, which is signed, too, says what the archive is.
    pub fn sign(&self, manifest: &[u8], trusted_comment: &str) -> Result<Bytes> {
        let failed = |error: minisign::PError| Error::stop(format!("signing the archive: {error}"));
        let public = PublicKey::from_secret_key(&self.0).map_err(failed)?;
        let untrusted = "signature of an archive by moveout";
        let signature = minisign::sign(
            Some(&public),
            &self.0,
            Cursor::new(manifest),
            Some(trusted_comment),
            Some(untrusted),
        );
        Ok(Bytes::from(signature.map_err(failed)?.into_string()))
    }
}

/// The trusted comment: the verdict, and when the sources had answered.
pub fn trusted_comment(verdict: Verdict, proved: Option<&str>) -> String {
    let verdict = match verdict {
        Verdict::Safe => "SAFE TO CANCEL",
        Verdict::NotYet => "NOT YET",
    };
    match proved {
        Some(time) => format!("{verdict}, compared with the sources until {time}"),
        None => format!("{verdict}, not compared with the sources"),
    }
}

/// A key without a password as minisign 0.11 writes it: without the checksum that the library asks for.
fn without_checksum(text: &str) -> Option<SecretKey> {
    const LENGTH: usize = 158;
    const CHECKSUM: usize = 32;
    let bytes = Base64::decode_to_vec(text.lines().nth(1)?, None).ok()?;
    let checksum = bytes.get(LENGTH - CHECKSUM..LENGTH)?;
    let is_open = bytes.get(2..4)? == [0, 0] && checksum.iter().all(|byte| *byte == 0);
    (is_open && bytes.len() == LENGTH).then(|| SecretKey::from_bytes(&bytes).ok())?
}
