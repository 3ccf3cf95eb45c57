//! PURE, except for random numbers: the answers of the authentication plugins to the server's nonce. None of them shows
//! the password to an eavesdropper.

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rsa::PublicKey;
use rsa::pkcs8::DecodePublicKey;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::error::{Error, Result};

/// The bytes of a nonce for MySQL's plugins, and for MariaDB's newer ones.
pub(super) const NONCE: usize = 20;
pub(super) const LONG_NONCE: usize = 32;

/// The answer to a nonce; `None` for a plugin that this client does not know, or that needs another step.
pub(super) fn proof(plugin: &[u8], password: &str, nonce: &[u8]) -> Option<Vec<u8>> {
    match plugin {
        // The server sends a salt first, even for an empty password.
        b"parsec" if nonce.len() >= LONG_NONCE => Some(Vec::new()),
        b"client_ed25519" => Some(ed25519(password, nonce.get(..LONG_NONCE)?)),
        _ if password.is_empty() => Some(Vec::new()),
        b"mysql_native_password" => {
            let once = Sha1::digest(password);
            let nonce = nonce.get(..NONCE)?;
            let salted =
                Sha1::new().chain_update(nonce).chain_update(Sha1::digest(once)).finalize();
            Some(xor(&once, &salted))
        }
        b"caching_sha2_password" => {
            let once = Sha256::digest(password);
            let twice = Sha256::digest(once);
            let salted =
                Sha256::new().chain_update(twice).chain_update(nonce.get(..NONCE)?).finalize();
            Some(xor(&once, &salted))
        }
        _ => None,
    }
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

/// MariaDB derives the key from the password itself, whatever its length.
fn ed25519(password: &str, nonce: &[u8]) -> Vec<u8> {
    let secret = ExpandedSecretKey::from_bytes(&Sha512::digest(password).into());
    let public = VerifyingKey::from(&secret);
    raw_sign::<Sha512>(&secret, nonce, &public).to_bytes().to_vec()
}

/// The second step of MariaDB's `parsec`: a key made from the password and the salt signs the server's nonce and one of
/// our own. `None` if the salt is malformed.
pub(super) fn parsec(password: &str, nonce: &[u8], salt: &[u8]) -> Option<Vec<u8>> {
    // A server that asks for more rounds, which MariaDB's own clients refuse as well, would only keep this client busy.
    let (b'P', factor @ 0..=3, salt @ [_, ..]) = (*salt.first()?, *salt.get(1)?, salt.get(2..)?)
    else {
        return None;
    };
    let mut seed = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha512>(password.as_bytes(), salt, 1024 << factor, &mut seed);
    let mut own = [0; LONG_NONCE];
    getrandom::fill(&mut own).ok()?;
    let message = [nonce.get(..LONG_NONCE)?, &own].concat();
    let signature = SigningKey::from_bytes(&seed).sign(&message);
    Some([&own[..], &signature.to_bytes()].concat())
}

/// The password, encrypted so that only the owner of the RSA key can read it, and only for this nonce.
pub(super) fn encrypted(password: &str, nonce: &[u8], key: &str) -> Result<Vec<u8>> {
    let bad = |why: &dyn std::fmt::Display| {
        Error::stop(format!("the server's public key is not an RSA key in PEM: {why}"))
    };
    let key = PublicKey::from_public_key_pem(key.trim()).map_err(|error| bad(&error))?;
    let nonce = nonce.get(..NONCE).ok_or_else(|| bad(&"it came without a nonce"))?;
    let hidden = xor(&[password.as_bytes(), &[0]].concat(), nonce);
    key.oaep_encrypt::<Sha1>(&hidden).map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: [u8; LONG_NONCE] = *b"0123456789abcdefghijABCDEFGHIJ!?";

    #[test]
    fn the_server_can_check_the_proofs_with_its_stored_hash() {
        let once = Sha1::digest("geheim");
        let found = proof(b"mysql_native_password", "geheim", &LONG).unwrap();
        // The server, which knows SHA1(SHA1(password)), gets SHA1(password) back and hashes it.
        let stored = Sha1::digest(once);
        let salted = Sha1::new().chain_update(&LONG[..NONCE]).chain_update(stored).finalize();
        assert_eq!(Sha1::digest(xor(&found, &salted)), stored);
        assert_eq!(proof(b"caching_sha2_password", "geheim", &LONG).unwrap().len(), 32);
        assert_eq!(proof(b"caching_sha2_password", "", &LONG), Some(Vec::new()));
        let signature = proof(b"client_ed25519", "geheim", &LONG).unwrap();
        let secret = ExpandedSecretKey::from_bytes(&Sha512::digest("geheim").into());
        let signature = signature.as_slice().try_into().unwrap();
        VerifyingKey::from(&secret).verify_strict(&LONG, &signature).unwrap();
        for unknown in [&b"dialog"[..], b"sha256_password", b"mysql_clear_password"] {
            assert_eq!(proof(unknown, "geheim", &LONG), None);
        }
        assert_eq!(proof(b"client_ed25519", "geheim", b"short"), None);
    }

    #[test]
    fn parsec_refuses_a_malformed_salt() {
        assert_eq!(parsec("geheim", &LONG, b"P\x01eighteen bytes....").unwrap().len(), 96);
        for odd in [&b""[..], b"P\x01", b"Q\x01eighteen bytes....", b"P\x1feighteen bytes...."] {
            assert_eq!(parsec("geheim", &LONG, odd), None);
        }
    }

    #[test]
    fn a_malformed_key_is_refused() {
        assert!(encrypted("geheim", &LONG, "-----BEGIN PUBLIC KEY-----").is_err());
    }
}
