//! The anti-forensic splitter: LUKS on-disk format, section 2.4. A key is spread over stripes so
//! that losing any one of them destroys it.

use zeroize::Zeroizing;

use crate::crypto::hash::Hash;

/// Hashes `block` piece by piece, each digest-sized piece preceded by its index.
fn diffuse(hash: Hash, block: &mut [u8]) {
    for (index, piece) in block.chunks_mut(hash.digest_len()).enumerate() {
        let digest = hash.digest(&[&(index as u32).to_be_bytes(), piece]);
        let len = piece.len();
        piece.copy_from_slice(&digest[..len]);
    }
}

/// Merges `stripes` (a whole number of keys) into the key.
pub fn merge(hash: Hash, stripes: &[u8], key_len: usize) -> Zeroizing<Vec<u8>> {
    let mut block = Zeroizing::new(vec![0u8; key_len]);
    let count = stripes.len() / key_len.max(1);
    for (index, stripe) in stripes.chunks_exact(key_len.max(1)).enumerate() {
        block.iter_mut().zip(stripe).for_each(|(b, s)| *b ^= s);
        if index + 1 < count {
            diffuse(hash, &mut block);
        }
    }
    block
}

/// Splits `key` into stripes; `stripes` must be filled with random bytes and be a whole number of keys long.
pub fn split(hash: Hash, key: &[u8], stripes: &mut [u8]) {
    let mut block = Zeroizing::new(vec![0u8; key.len()]);
    let count = stripes.len() / key.len().max(1);
    for (index, stripe) in stripes.chunks_exact_mut(key.len().max(1)).enumerate() {
        if index + 1 < count {
            block.iter_mut().zip(&*stripe).for_each(|(b, s)| *b ^= s);
            diffuse(hash, &mut block);
        } else {
            stripe
                .iter_mut()
                .zip(&*block)
                .zip(key)
                .for_each(|((s, b), k)| *s = b ^ k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_split_merges_again() {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Ripemd160] {
            let key: Vec<u8> = (0..32).collect();
            let mut stripes: Vec<u8> = (0..32 * 50).map(|i| (i * 7 % 251) as u8).collect();
            split(hash, &key, &mut stripes);
            assert_eq!(*merge(hash, &stripes, 32), key);
            stripes[3] ^= 1;
            assert_ne!(*merge(hash, &stripes, 32), key);
        }
    }
}
