//! The key that signs an archive, which the environment names.

use std::env;
use std::fs;

use crate::error::{Error, Result};
use crate::signature::SigningKey;

/// A file with a secret key of minisign.
const KEY: &str = "MOVEOUT_MINISIGN_KEY";
/// Its password, where it has one.
const PASSWORD: &str = "MOVEOUT_MINISIGN_PASSWORD";

/// The key, if there is one. It is read before anything else is done: a wrong password shall not end the work of hours.
pub fn signing_key() -> Result<Option<SigningKey>> {
    let Some(file) = env::var_os(KEY).filter(|file| !file.is_empty()) else { return Ok(None) };
    let place = file.to_string_lossy().into_owned();
    let password = env::var(PASSWORD).ok();
    let hint = if password.is_some() {
        format!("{PASSWORD} is its password")
    } else {
        format!("its password belongs into {PASSWORD}")
    };
    let text = fs::read_to_string(&file)
        .map_err(|error| Error::usage(format!("{KEY}: reading {place}: {error}")))?;
    SigningKey::read(&text, password)
        .map(Some)
        .map_err(|why| Error::usage(format!("{KEY}: {place} cannot be used: {why}")).hint(hint))
}
