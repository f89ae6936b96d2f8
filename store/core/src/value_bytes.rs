//! The bytes of a value, as a state keeps them in memory.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// Room for heads, acknowledgements and what else is small and changed all the time. With its length and
/// what says that it is in place this is no more than larger values take here, and a change with its key
/// is two lines of a processor's cache.
const IN_PLACE: usize = 38;

/// The bytes of a value: of a small one in place, so that whoever finds its key has it as well, and need not
/// wait for memory once more; of a larger one shared, so that a copy is none.
#[derive(Clone)]
pub struct ValueBytes(Kept);

#[derive(Clone)]
enum Kept {
    InPlace { len: u8, bytes: [u8; IN_PLACE] },
    Shared(Bytes),
}

impl ValueBytes {
    /// A copy of these bytes, which keeps nothing else in memory.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::in_place(bytes)
            .unwrap_or_else(|| ValueBytes(Kept::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// These bytes in place, if there is room for them.
    pub(crate) fn in_place(bytes: &[u8]) -> Option<Self> {
        let mut kept = [0; IN_PLACE];
        kept.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let len = u8::try_from(bytes.len()).expect("there is no room for more");
        Some(ValueBytes(Kept::InPlace { len, bytes: kept }))
    }
}

impl From<Bytes> for ValueBytes {
    fn from(bytes: Bytes) -> Self {
        Self::in_place(&bytes).unwrap_or(ValueBytes(Kept::Shared(bytes)))
    }
}

impl From<Vec<u8>> for ValueBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::in_place(&bytes).unwrap_or_else(|| ValueBytes(Kept::Shared(bytes.into())))
    }
}

impl Deref for ValueBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Kept::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for ValueBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for ValueBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ValueBytes {}

impl fmt::Debug for ValueBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes::copy_from_slice(self).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were_whatever_their_number() {
        for len in 0..=2 * IN_PLACE {
            let bytes: Vec<u8> = (1..).take(len).collect();
            let all = [
                ValueBytes::copy_of(&bytes),
                ValueBytes::from(bytes.clone()),
                ValueBytes::from(Bytes::from(bytes.clone())),
            ];
            for kept in all {
                assert_eq!(*kept, *bytes);
                assert_eq!(matches!(kept.0, Kept::InPlace { .. }), len <= IN_PLACE);
            }
        }
    }

    #[test]
    fn what_is_in_place_takes_no_more_than_what_is_shared() {
        assert_eq!(
            size_of::<Option<Option<ValueBytes>>>(),
            size_of::<Bytes>() + size_of::<usize>()
        );
    }
}
