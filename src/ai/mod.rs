//! Under construction within this commit series.
