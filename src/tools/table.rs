//! Rows under one line of column names, and how many of them an answer has room for.

use serde_json::{Map, Value};

/// Columns and rows. Names of columns are said once, which is most of what a list of objects costs.
#[derive(Debug, Clone)]
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A row has as many values as there are columns.
    pub(super) fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes out columns in which nothing stands.
    fn narrow(&mut self) {
        let used: Vec<bool> = (0..self.columns.len())
            .map(|n| self.rows.iter().any(|row| row.get(n).is_some_and(|v| !v.is_null())))
            .collect();
        let keep = |n: usize| used.get(n).copied().unwrap_or(true);
        let mut n = 0..;
        self.columns.retain(|_| n.next().is_none_or(keep));
        for row in &mut self.rows {
            let mut n = 0..;
            row.retain(|_| n.next().is_none_or(keep));
        }
    }

    /// Cuts between rows, so that what is left takes at most so many bytes; at least one row stays.
    pub(super) fn fit(&mut self, bytes: usize) {
        self.narrow();
        let mut used = 0;
        let fitting = self.rows.iter().take_while(|row| {
            let size: usize = row.iter().map(|value| value.to_string().len() + 1).sum();
            used += size + 2;
            used <= bytes
        });
        let fitting = fitting.count().max(1);
        self.rows.truncate(fitting);
    }

    /// Puts columns and rows into an answer.
    pub(super) fn put(self, content: &mut Map<String, Value>, columns: &str, rows: &str) {
        content.insert(columns.to_owned(), self.columns.into());
        content.insert(rows.to_owned(), self.rows.into_iter().map(Value::from).collect());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_cut_whole_and_empty_columns_left_out() {
        let mut table = Table::new(&["a", "b", "c"]);
        for n in 0..10 {
            table.push(vec![n.into(), Value::Null, "\"quoted\" text".into()]);
        }
        table.fit(70);
        let mut content = Map::new();
        table.put(&mut content, "columns", "rows");
        assert_eq!(content["columns"], json!(["a", "c"]));
        let rows = content["rows"].as_array().unwrap();
        assert!(rows.len() == 3 && content["rows"].to_string().len() <= 70, "{rows:?}");
        assert_eq!(rows[2], json!([2, "\"quoted\" text"]));
    }
}
