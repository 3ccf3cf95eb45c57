//! The login: the server's greeting, TLS, and the authentication plugins. Secrets go only to the server, and never in
//! the clear over an unencrypted connection.

use crate::config::{Database, ServerKey, TlsMode};
use crate::error::Error;
use crate::source::mysql::errors::{CommandError, ServerError};
use crate::source::mysql::packet::{Packets, Parts};
use crate::source::mysql::proofs::{LONG_NONCE, encrypted, parsec, proof};

/// What this client can do. CLIENT_DEPRECATE_EOF is left out: without it, every server ends its results alike.
const CAPABILITIES: u32 = LONG_PASSWORD
    | LONG_FLAG
    | LOCAL_FILES
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE_CONNECTION
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | PLUGIN_AUTH;
const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
/// Rows are sent by `LOAD DATA LOCAL`, from memory. A server that asks for a file without such a statement gets none.
const LOCAL_FILES: u32 = 1 << 7;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const MULTI_STATEMENTS: u32 = 1 << 16;
const MULTI_RESULTS: u32 = 1 << 17;
const PS_MULTI_RESULTS: u32 = 1 << 18;
const PLUGIN_AUTH: u32 = 1 << 19;

/// The largest packet that the server may send; its own limit is usually lower.
const MAX_PACKET: u32 = 1 << 30;
/// utf8mb4_general_ci, which all versions have.
const UTF8MB4: u8 = 45;

/// What the server says about itself.
pub(super) struct Greeting {
    pub(super) version: String,
    /// The number of the connection.
    pub(super) id: u32,
    capabilities: u32,
    nonce: Vec<u8>,
    plugin: Vec<u8>,
}

/// Logs in. Returns the connection, encrypted or not.
pub(super) fn handshake(
    mut packets: Packets,
    database: &Database,
) -> Result<(Packets, Greeting), CommandError> {
    let greeting = greeting(packets.next()?)?;
    let capabilities = CAPABILITIES & greeting.capabilities;
    if capabilities & PROTOCOL_41 == 0 {
        return Err(Error::stop("the server is older than MySQL 4.1").into());
    }
    let capabilities = match (database.tls.mode, greeting.capabilities & SSL != 0) {
        (TlsMode::Disable, _) | (TlsMode::Prefer, false) => capabilities,
        (_, false) => {
            return Err(Error::stop("the server does not offer TLS")
                .hint("sslmode=prefer or disable connects without TLS, which shows the data to anyone who listens")
                .into());
        }
        (_, true) => {
            packets.send(&prelude(capabilities | SSL))?;
            packets = packets.upgrade(&database.tls, &database.host)?;
            capabilities | SSL
        }
    };
    let password = database.password.as_ref().map_or("", |password| password.expose());
    // Without a proof, the server names the plugin that it wants instead.
    let proof = proof(&greeting.plugin, password, &greeting.nonce).unwrap_or_default();
    let mut response = prelude(capabilities);
    response.extend_from_slice(database.user.as_bytes());
    response.push(0);
    response.push(proof.len() as u8); // at most 64
    response.extend_from_slice(&proof);
    if capabilities & PLUGIN_AUTH != 0 {
        response.extend_from_slice(&greeting.plugin);
        response.push(0);
    }
    packets.send(&response)?;
    authenticate(&mut packets, &greeting, password, database)?;
    Ok((packets, greeting))
}

fn prelude(capabilities: u32) -> Vec<u8> {
    let mut prelude = capabilities.to_le_bytes().to_vec();
    prelude.extend_from_slice(&MAX_PACKET.to_le_bytes());
    prelude.push(UTF8MB4);
    prelude.extend_from_slice(&[0; 23]);
    prelude
}

fn greeting(packet: &[u8]) -> Result<Greeting, CommandError> {
    if packet.first() == Some(&0xff) {
        return Err(CommandError::Server(server_error(packet)));
    }
    let mut parts = Parts(packet);
    let mut read = || {
        if parts.byte()? != 10 {
            return None;
        }
        let version = String::from_utf8_lossy(parts.zero_ended()).into_owned();
        let id = parts.u32()?;
        let mut nonce = parts.take(8)?.to_vec();
        parts.byte()?;
        let low = parts.u16()?;
        parts.take(3)?; // charset and status
        let capabilities = u32::from(low) | u32::from(parts.u16()?) << 16;
        let length = parts.byte()?;
        parts.take(10)?;
        let rest = usize::from(length).saturating_sub(8).max(13);
        nonce.extend_from_slice(parts.take(rest.min(parts.0.len()))?);
        nonce.truncate(20); // a zero ends it
        let plugin = if capabilities & PLUGIN_AUTH != 0 {
            parts.zero_ended().to_vec()
        } else {
            b"mysql_native_password".to_vec()
        };
        Some(Greeting { version, id, capabilities, nonce, plugin })
    };
    read().ok_or_else(|| {
        Error::stop("the server does not speak MySQL's protocol").hint("check host and port").into()
    })
}

/// The error that a packet holds.
pub(super) fn server_error(packet: &[u8]) -> ServerError {
    let mut parts = Parts(packet.get(1..).unwrap_or_default());
    let code = parts.u16().unwrap_or_default();
    let mut state = "HY000".to_owned();
    // The SQL state is missing before the capabilities are exchanged.
    if parts.0.first() == Some(&b'#')
        && let Some(found) = parts.take(6)
    {
        state = String::from_utf8_lossy(&found[1..]).into_owned();
    }
    ServerError { code, state, message: String::from_utf8_lossy(parts.0).into_owned() }
}

/// Completes the login: the server may ask for another plugin, or for the password itself.
fn authenticate(
    packets: &mut Packets,
    greeting: &Greeting,
    password: &str,
    database: &Database,
) -> Result<(), CommandError> {
    let (mut plugin, mut nonce) = (greeting.plugin.clone(), greeting.nonce.clone());
    loop {
        let packet = packets.next()?.to_vec();
        let mut parts = Parts(&packet);
        match parts.byte() {
            Some(0x00) => return Ok(()),
            Some(0xff) => return Err(CommandError::Server(server_error(&packet))),
            Some(0xfe) => {
                plugin = parts.zero_ended().to_vec();
                // The nonce cannot be read up to a zero: any of its bytes may be one.
                nonce = parts.0[..parts.0.len().min(LONG_NONCE)].to_vec();
                match proof(&plugin, password, &nonce) {
                    Some(proof) => packets.send(&proof)?,
                    None => hand_over(packets, greeting, &plugin, password, &nonce, database)?,
                }
            }
            // In caching_sha2_password, 3 means success and 4 asks for the password itself.
            Some(0x01) if parts.0 == [3] => {}
            Some(0x01) if parts.0 == [4] => {
                hand_over(packets, greeting, &plugin, password, &nonce, database)?;
            }
            _ if plugin == b"parsec" => {
                // MariaDB prefixes the salt with a 1, so that it cannot be mistaken for another packet.
                let salt = packet.strip_prefix(&[1]).unwrap_or(&packet);
                let answer = parsec(password, &nonce, salt);
                packets.send(&answer.ok_or_else(|| CommandError::nonsense("a salt"))?)?;
            }
            _ => return Err(CommandError::nonsense("a packet in the middle of the login")),
        }
    }
}

/// Sends the password itself to a plugin that asks for it: within TLS, or encrypted with the server's key.
fn hand_over(
    packets: &mut Packets,
    greeting: &Greeting,
    plugin: &[u8],
    password: &str,
    nonce: &[u8],
    database: &Database,
) -> Result<(), CommandError> {
    let name = String::from_utf8_lossy(plugin);
    let takes_rsa = matches!(&*name, "sha256_password" | "caching_sha2_password");
    if !takes_rsa && name != "mysql_clear_password" {
        let error = match &*name {
            "" => Error::stop(
                "the server asks for the password in the format from before MySQL 4.1, which is not safe",
            ),
            _ => Error::stop(format!(
                "the server authenticates `{}` with the plugin `{}`, which moveout does not know",
                database.user,
                name.escape_debug()
            )),
        };
        return Err(error
            .hint("use an account with caching_sha2_password, or set this one's password anew")
            .into());
    }
    if packets.is_tls() {
        return Ok(packets.send(&[password.as_bytes(), &[0]].concat())?);
    }
    let key = match &database.server_key {
        _ if !takes_rsa => None,
        None => None,
        Some(ServerKey::File(path)) => Some(std::fs::read_to_string(path).map_err(|error| {
            Error::usage(format!("server-public-key-path: {}: {error}", path.display()))
        })?),
        Some(ServerKey::Fetch) => {
            packets.send(if name == "sha256_password" { &[1] } else { &[2] })?;
            match packets.next()? {
                [0x01, key @ ..] => Some(String::from_utf8_lossy(key).into_owned()),
                packet @ [0xff, ..] => return Err(CommandError::Server(server_error(packet))),
                _ => return Err(CommandError::nonsense("its public key")),
            }
        }
    };
    let Some(key) = key else {
        let error = Error::stop(format!(
            "the server asks for the password itself (`{name}`), and the connection is not encrypted"
        ));
        let by_tls = "use TLS (sslmode=require)";
        let by_key = "name the file of the server's RSA key (?server-public-key-path=FILE), or let the server send \
                      its key (?get-server-public-key=true), which is safe only where nobody can impersonate it";
        return Err(match (takes_rsa, greeting.capabilities & SSL != 0) {
            (true, true) => error.hint(format!("{by_tls}; or else {by_key}")),
            (true, false) => error.hint(format!("it offers no TLS: {by_key}")),
            (false, true) => error.hint(by_tls),
            (false, false) => error.hint("it offers no TLS: use an account with another plugin"),
        }
        .into());
    };
    Ok(packets.send(&encrypted(password, nonce, &key)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_refused() {
        for answer in [&b"SSH-2.0-OpenSSH"[..], b"", b"\x0a", b"\x0a5.7\0\x01\0\0\0abc"] {
            assert!(greeting(answer).is_err());
        }
        let refused = greeting(b"\xff\x10\x04Too many connections").err().unwrap();
        assert_eq!(refused.code(), Some(1040));
    }
}
