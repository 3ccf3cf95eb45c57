//! PURE: what must not be written of options and settings that users give names and values to, as SQL and for
//! the text of a dump.

/// What replaces a secret.
const LEFT_OUT: &str = "(left out)";

/// Names of options whose values are secrets.
const NAMES: &str =
    "pass(word|wd|phrase)?$|pwd|secret|token|credential|(api|access|private|encryption)_?key";

/// An SQL expression of the name and the value of an option, without what is secret in it: passwords in URLs and
/// connection strings, too.
pub(super) fn visible(name: &str, value: &str) -> String {
    format!(
        "CASE WHEN {name} ~* '{NAMES}' THEN '{LEFT_OUT}' ELSE regexp_replace(regexp_replace({value}, \
         '(://[^/@:]*):[^/@]*@', '\\1:{LEFT_OUT}@', 'g'), \
         '(pass(?:word|wd)?\\s*=\\s*)(?:''[^'']*''|[^\\s;&]+)', '\\1{LEFT_OUT}', 'gi') END"
    )
}

/// An option of a foreign object as its definition has it. Expects `pg_options_to_table(…) AS o`.
pub(super) fn option() -> String {
    let value = visible("o.option_name", "o.option_value");
    format!("quote_ident(o.option_name) || ' ' || quote_literal({value})")
}

/// A query of all options that hold secrets: as pg_dump writes them, and as they may be written. For a user with
/// `quote_all_identifiers` it writes each name in quotes.
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
