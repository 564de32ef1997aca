//! Reading columns. Files may come from anywhere: nothing in them is taken for granted.

use std::cell::OnceCell;
use std::str::FromStr;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, PrimitiveArray, RecordBatch, StringArray,
};

use super::schema::Column;

/// A column of text, or none.
#[derive(Debug, Default, Clone)]
pub(super) struct Texts {
    keys: Option<Int32Array>,
    values: Option<StringArray>,
}

impl Texts {
    fn of(array: Option<&ArrayRef>) -> Self {
        let Some(array) = array else { return Texts::default() };
        if let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() {
            let values = dictionary.values().as_string_opt::<i32>().cloned();
            return Texts { keys: Some(dictionary.keys().clone()), values };
        }
        Texts { keys: None, values: array.as_string_opt::<i32>().cloned() }
    }

    /// The number of a row's text among the [`Texts::values`].
    pub(super) fn key(&self, row: usize) -> Option<usize> {
        match &self.keys {
            // As most columns are: without a gap.
            Some(keys) if keys.nulls().is_none() => {
                keys.values().get(row).and_then(|key| usize::try_from(*key).ok())
            }
            Some(keys) if row < keys.len() && keys.is_valid(row) => {
                usize::try_from(keys.value(row)).ok()
            }
            Some(_) => None,
            None => self.values.as_ref().filter(|v| row < v.len() && v.is_valid(row)).map(|_| row),
        }
    }

    pub(super) fn get(&self, row: usize) -> Option<&str> {
        self.value(self.key(row)?)
    }

    fn value(&self, key: usize) -> Option<&str> {
        let values = self.values.as_ref()?;
        (key < values.len() && values.is_valid(key)).then(|| values.value(key))
    }

    /// What each of the texts is worth, to be looked up by key.
    pub(super) fn table<T>(&self, worth: impl Fn(&str) -> T) -> Vec<Option<T>> {
        let count = self.values.as_ref().map_or(0, Array::len);
        (0..count).map(|key| self.value(key).map(&worth)).collect()
    }
}

/// A column of text that is parsed, each value once.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    texts: Texts,
    table: Vec<Option<T>>,
}

impl<T: FromStr + Copy> Parsed<T> {
    pub(super) fn of(texts: Texts) -> Self {
        let table = texts.table(|text| text.parse().ok()).into_iter().map(Option::flatten);
        Parsed { table: table.collect(), texts }
    }

    pub(super) fn get(&self, row: usize) -> Option<T> {
        self.table.get(self.texts.key(row)?).copied().flatten()
    }

    /// A number for what a row says.
    pub(super) fn code(&self, row: usize) -> Option<usize> {
        self.texts.key(row)
    }
}

/// A column of numbers, or none.
#[derive(Debug, Clone)]
pub(super) struct Numbers<T: ArrowPrimitiveType>(Option<PrimitiveArray<T>>);

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn get(&self, row: usize) -> Option<T::Native> {
        let array = self.0.as_ref()?;
        if array.nulls().is_none() {
            return array.values().get(row).copied();
        }
        (row < array.len() && array.is_valid(row)).then(|| array.value(row))
    }

    /// All of them, where none is missing.
    pub(super) fn all(&self) -> Option<&[T::Native]> {
        self.0.as_ref().filter(|array| array.null_count() == 0).map(|array| &**array.values())
    }
}

/// A column of yes and no, or none.
#[derive(Debug, Clone)]
pub(super) struct Flags(Option<BooleanArray>);

impl Flags {
    pub(super) fn get(&self, row: usize) -> Option<bool> {
        let array = self.0.as_ref()?;
        (row < array.len() && array.is_valid(row)).then(|| array.value(row))
    }
}

/// The column of a batch, by its name: files of other versions have them at other places.
fn find(batch: &RecordBatch, column: Column) -> Option<&ArrayRef> {
    batch.column_by_name(column.name())
}

pub(super) fn texts(batch: &RecordBatch, column: Column) -> Texts {
    Texts::of(find(batch, column))
}

pub(super) fn parsed<T: FromStr + Copy>(batch: &RecordBatch, column: Column) -> Parsed<T> {
    Parsed::of(texts(batch, column))
}

pub(super) fn numbers<T: ArrowPrimitiveType>(batch: &RecordBatch, column: Column) -> Numbers<T> {
    Numbers(find(batch, column).and_then(|array| array.as_primitive_opt::<T>()).cloned())
}

pub(super) fn flags(batch: &RecordBatch, column: Column) -> Flags {
    Flags(find(batch, column).and_then(|array| array.as_boolean_opt()).cloned())
}

/// Read when it is first asked for.
pub(super) type Lazy<T> = OnceCell<T>;
