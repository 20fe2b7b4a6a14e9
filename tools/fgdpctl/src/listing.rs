// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The format of the module's listings: a line that names the columns, then one line per entry, `-` for what is not
//! known.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::{ensure, Context, Result};
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::Deserialize;

/// The entries in their order. Columns without a field in `T` are ignored: a newer module may have more.
///
/// # Errors
///
/// When there is no header, a column is missing, or an entry has another number of fields than the header, or
/// something else in them.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    ensure!(
        text.lines().next().is_some_and(|header| !header.is_empty()),
        "the header line is missing"
    );
    csv::ReaderBuilder::new()
        .delimiter(b' ')
        .quoting(false)
        .from_reader(text.as_bytes())
        .deserialize()
        .collect::<csv::Result<_>>()
        .context("is the module of fgdpctl's version?")
}

/// A field that may be unknown.
///
/// # Errors
///
/// When something else is in it.
pub fn known<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    match String::deserialize(field)?.as_str() {
        "-" | "" => Ok(None),
        text => text.parse().map(Some).map_err(D::Error::custom),
    }
}

/// A field with any number of entries, with commas between them.
///
/// # Errors
///
/// When an entry is something else.
pub fn list<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    field: D,
) -> Result<Vec<T>, D::Error> {
    match String::deserialize(field)?.as_str() {
        "-" | "" => Ok(Vec::new()),
        text => text
            .split(',')
            .map(|entry| entry.parse().map_err(D::Error::custom))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        #[serde(deserialize_with = "known")]
        a: Option<u32>,
        b: u32,
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse::<Row>(text).unwrap_err())
    }

    #[test]
    fn columns_are_found_by_name() {
        let rows: Vec<Row> = parse("b new a\n1 x -\n2 \" 7\n").unwrap();
        assert_eq!(rows, [Row { a: None, b: 1 }, Row { a: Some(7), b: 2 }]);
        let missing = error("b\n1\n");
        assert!(
            missing.contains("`a`") && missing.contains("version"),
            "{missing}"
        );
        assert!(error("a b\n1 y\n").contains("line: 2"));
        assert!(error("a b\ny 1\n").contains("line: 2"));
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert!(parse::<Row>("").is_err());
        assert!(parse::<Row>("\n1\n").is_err());
        let wrong = error("a b\n1 2\n1\n");
        assert!(wrong.contains("line: 3"), "{wrong}");
    }

    #[test]
    fn a_listing_may_be_empty() {
        assert_eq!(parse::<Row>("a b\n").unwrap(), []);
    }
}
