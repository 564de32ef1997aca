//! Names and values of filters.
