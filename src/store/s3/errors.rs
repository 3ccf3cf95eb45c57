//! The class of each error of an S3-compatible service, and what the user can do about it.

use crate::error::Class;
use crate::error::Error;

/// The text between two tags of an XML response.
pub(in crate::store) fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

/// Whether the bucket is missing, and not an object.
pub(in crate::store) fn no_bucket(text: &str) -> bool {
    text.contains("NoSuchBucket")
}

/// Whether the service does not support the request.
pub(in crate::store) fn not_implemented(text: &str) -> bool {
    text.contains("NotImplemented") || text.contains("501 Not Implemented")
}

/// The error for an error text of the service, with what to do about it.
pub(crate) fn explain(text: &str) -> Error {
    let code = tag(text, "Code").unwrap_or_default();
    let said = match (code, tag(text, "Message")) {
        ("", _) => text.to_owned(),
        (code, message) => format!("the store says {code}: {}", message.unwrap_or_default()),
    };
    let has = |words: &[&str]| words.iter().any(|word| code == *word || text.contains(word));
    if has(&["PublicEndpointForbidden"]) {
        return Error::stop(said).hint(
            "Alibaba Cloud serves this bucket only within its region or by your own domain: \
             use the internal endpoint (https://s3.oss-REGION-internal.aliyuncs.com) from an instance there, \
             or bind a custom domain to the bucket and give that as the endpoint",
        );
    }
    if has(&["NoSuchBucket"]) {
        return Error::stop(said).hint("create the bucket first: moveout does not create buckets");
    }
    if has(&["RequestTimeTooSkewed"]) {
        return Error::stop(said).hint("set this machine's clock");
    }
    if has(&[
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraint",
        "incorrectly configured region",
    ]) {
        return Error::stop(said).hint("the bucket is in another region: set AWS_REGION");
    }
    if has(&["SecondLevelDomainForbidden"]) {
        return Error::stop(said)
            .hint("this service requires the bucket in the host name: set `preset = \"oss\"`");
    }
    if has(&["QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507 "]) {
        return Error::incomplete(said)
            .hint("make room, then run the same command again; what was committed stays");
    }
    if has(&[
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "401 Unauthorized",
    ]) {
        return Error::stop(said)
            .hint("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN");
    }
    if has(&["AccessDenied", "403 Forbidden"]) {
        return Error::stop(said)
            .hint("the key must be allowed to get, put, list and delete below the prefix, and to abort uploads");
    }
    if has(&["169.254.169.254"]) {
        return Error::stop("there are no credentials for the bucket")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    }
    if not_implemented(text) || has(&["400 Bad Request"]) && code != "RequestTimeout" {
        return Error::stop(said).hint("`moveout doctor` tests what the store can do");
    }
    Error::of(Class::Retry, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_service_has_a_class_and_a_hint() {
        let xml = |status: &str, code: &str| {
            explain(&format!(
                "Server returned non-2xx status code: {status}: <Error><Code>{code}</Code><Message>m</Message></Error>"
            ))
        };
        let denied = xml("403 Forbidden", "AccessDenied");
        assert_eq!(
            (denied.class(), denied.to_string().as_str()),
            (Class::Stop, "the store says AccessDenied: m")
        );
        let forbidden = xml("400 Bad Request", "PublicEndpointForbidden");
        assert!(forbidden.hint_text().unwrap_or_default().contains("internal endpoint"));
        for (status, code) in [
            ("500 Internal Server Error", "InternalError"),
            ("503 Service Unavailable", "SlowDown"),
            ("400 Bad Request", "RequestTimeout"),
        ] {
            assert_eq!(xml(status, code).class(), Class::Retry, "{code}");
        }
        assert_eq!(
            xml("507 Insufficient Storage", "XMinioStorageFull").exit(),
            crate::error::Exit::Incomplete
        );
    }
}
