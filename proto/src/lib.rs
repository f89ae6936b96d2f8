//! Tidemark's wire protocol: generated messages and their conversions.
