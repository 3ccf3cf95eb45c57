//! PURE: masks the secrets in options and settings, whose names and values users choose: by SQL, and in the text of a
//! dump.

/// The text that replaces a secret.
const LEFT_OUT: &str = "(left out)";

/// A pattern of the names of options whose values are secrets.
const NAMES: &str =
    "pass(word|wd|phrase)?$|pwd|secret|token|credential|(api|access|private|encryption)_?key";

/// An SQL expression for the value of an option, in which secrets are masked, including passwords in URLs and connection
/// strings. Both arguments are SQL expressions.
pub(super) fn visible(name: &str, value: &str) -> String {
    format!(
        "CASE WHEN {name} ~* '{NAMES}' THEN '{LEFT_OUT}' ELSE regexp_replace(regexp_replace({value}, \
         '(://[^/@:]*):[^/@]*@', '\\1:{LEFT_OUT}@', 'g'), \
         '(pass(?:word|wd)?\\s*=\\s*)(?:''[^'']*''|[^\\s;&]+)', '\\1{LEFT_OUT}', 'gi') END"
    )
}

/// An option of a foreign object as it is written in a definition. Expects `pg_options_to_table(…) AS o`.
pub(super) fn option() -> String {
    let value = visible("o.option_name", "o.option_value");
    format!("quote_ident(o.option_name) || ' ' || quote_literal({value})")
}

/// A query for all options that hold secrets: as pg_dump writes them, and masked. With `quote_all_identifiers`, pg_dump
/// writes each name in quotes, so both forms are returned.
pub(in crate::source::postgres) fn options() -> String {
    let quoted = "'\"' || replace(o.option_name, '\"', '\"\"') || '\"'";
    format!("{} UNION {}", options_by("quote_ident(o.option_name)"), options_by(quoted))
}

fn options_by(name: &str) -> String {
    let written = format!("{name} || ' ' || quote_literal(o.option_value)");
    let visible =
        format!("{name} || ' ' || quote_literal({})", visible("o.option_name", "o.option_value"));
    format!(
        "SELECT {written}, {name} || ' ' || quote_literal('{LEFT_OUT}') \
         FROM pg_user_mappings m, pg_options_to_table(m.umoptions) o \
         UNION SELECT {written}, {visible} FROM (SELECT srvoptions FROM pg_foreign_server \
         UNION ALL SELECT fdwoptions FROM pg_foreign_data_wrapper UNION ALL SELECT ftoptions FROM pg_foreign_table \
         UNION ALL SELECT attfdwoptions FROM pg_attribute WHERE attfdwoptions IS NOT NULL) AS f (options), \
         pg_options_to_table(f.options) o WHERE {written} <> {visible}"
    )
}
