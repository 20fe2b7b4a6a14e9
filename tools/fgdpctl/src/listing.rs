// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The format of the module's listings: a line that names the columns, then one line per entry.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use anyhow::{anyhow, bail, Context, Result};

/// A listing, split into fields.
#[derive(Debug)]
pub struct Table<'a> {
    columns: HashMap<&'a str, usize>,
    rows: Vec<Vec<&'a str>>,
}

/// One entry of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a HashMap<&'a str, usize>,
    fields: &'a [&'a str],
}

impl<'a> Table<'a> {
    /// Splits `text`. Columns that nobody asks for are ignored: a newer module may have more.
    ///
    /// # Errors
    ///
    /// When there is no header, or a line has another number of fields than the header.
    pub fn parse(text: &'a str) -> Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let columns: HashMap<_, _> = header.split_whitespace().zip(0..).collect();
        if columns.is_empty() {
            bail!("the header line is missing");
        }
        let mut rows = Vec::new();
        for (number, line) in lines.enumerate() {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields.len() != columns.len() {
                let (want, have) = (columns.len(), fields.len());
                bail!("line {}: {want} fields expected, {have} found", number + 2);
            }
            rows.push(fields);
        }
        Ok(Self { columns, rows })
    }

    /// The entries in their order.
    pub fn rows(&'a self) -> impl Iterator<Item = Row<'a>> {
        self.rows.iter().map(|fields| Row {
            columns: &self.columns,
            fields,
        })
    }
}

impl<'a> Row<'a> {
    /// The field in column `name`.
    ///
    /// # Errors
    ///
    /// When there is no such column.
    pub fn text(&self, name: &str) -> Result<&'a str> {
        let field = self.columns.get(name).and_then(|at| self.fields.get(*at));
        field
            .copied()
            .ok_or_else(|| anyhow!("no column `{name}`: is the module of fgdpctl's version?"))
    }

    /// The value in column `name`.
    ///
    /// # Errors
    ///
    /// When there is no such column, or something else is in it.
    pub fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|e| anyhow!("{e}"))
            .with_context(|| format!("column `{name}`: `{text}`"))
    }

    /// The value in column `name`, or `None` for `-`.
    ///
    /// # Errors
    ///
    /// As [`Row::value`].
    pub fn known<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        match self.text(name)? {
            "-" => Ok(None),
            _ => self.value(name).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let table = Table::parse("b new a\n1 x -\n2 y 7\n").unwrap();
        let rows: Vec<_> = table.rows().collect();
        assert_eq!(rows[0].value::<u32>("b").unwrap(), 1);
        assert_eq!(rows[0].known::<u32>("a").unwrap(), None);
        assert_eq!(rows[1].known::<u32>("a").unwrap(), Some(7));
        assert!(rows[1].text("c").unwrap_err().to_string().contains("`c`"));
        let wrong = format!("{:#}", rows[1].value::<u32>("new").unwrap_err());
        assert!(wrong.contains("`new`: `y`"), "{wrong}");
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert!(Table::parse("").is_err());
        assert!(Table::parse("\n1\n").is_err());
        let wrong = Table::parse("a b\n1 2\n1\n").unwrap_err().to_string();
        assert_eq!(wrong, "line 3: 2 fields expected, 1 found");
    }

    #[test]
    fn a_listing_may_be_empty() {
        assert_eq!(Table::parse("a b\n").unwrap().rows().count(), 0);
    }
}
