//! Writing what Apple's systems encrypt.

use aes::cipher::array::Array;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use des::TdesEde3;
use hmac::{Hmac, Mac};
use sha1::Sha1;

pub const PASS: &str = "correct horse";

/// How an image is encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Lock {
    pub version: u32,
    /// Bytes of the key of the data.
    pub key: usize,
    pub block: usize,
    /// The keys are wrapped by AES rather than by Triple DES.
    pub by_aes: bool,
    pub iterations: u32,
}

pub const LOCKS: [Lock; 5] = [
    lock(2, 16, 512, false),
    lock(2, 32, 4096, false),
    lock(2, 32, 512, true),
    lock(1, 16, 4096, false),
    lock(1, 16, 512, false),
];

const fn lock(version: u32, key: usize, block: usize, by_aes: bool) -> Lock {
    Lock {
        version,
        key,
        block,
        by_aes,
        iterations: 100,
    }
}

pub fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| (n as u8).wrapping_mul(37) ^ seed)
        .collect()
}

/// CBC, filled up to whole blocks where that is asked for.
fn chained<C: BlockCipherEncrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    plain: &[u8],
    is_filled: bool,
) -> Vec<u8> {
    let cipher = C::new_from_slice(key).expect("a key of its length");
    let mut last = Array::<u8, C::BlockSize>::default();
    last.iter_mut().zip(iv).for_each(|(to, from)| *to = *from);
    let mut plain = plain.to_vec();
    if is_filled {
        let fill = last.len() - plain.len() % last.len();
        plain.extend(vec![fill as u8; fill]);
    }
    let mut out = Vec::new();
    for block in plain.chunks(last.len()) {
        last.iter_mut()
            .zip(block)
            .for_each(|(to, from)| *to ^= from);
        cipher.encrypt_block(&mut last);
        out.extend(&last);
    }
    out
}

/// Blocks from a number on, the last one filled up.
pub fn encrypted_blocks(plain: &[u8], lock: Lock, first: u32) -> Vec<u8> {
    let (key, iv_key) = keys(lock);
    let mut out = Vec::new();
    for (n, block) in (first..).zip(plain.chunks(lock.block)) {
        let mut block = block.to_vec();
        block.resize(lock.block, 0);
        let mut mac = Hmac::<Sha1>::new_from_slice(&iv_key).expect("any length");
        mac.update(&n.to_be_bytes());
        let iv = mac.finalize().into_bytes();
        out.extend(match key.len() {
            16 => chained::<Aes128>(&key, &iv[..16], &block, false),
            _ => chained::<Aes256>(&key, &iv[..16], &block, false),
        });
    }
    out
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The keys of the data and of the IVs.
fn keys(lock: Lock) -> (Vec<u8>, Vec<u8>) {
    (bytes(1, lock.key), bytes(2, 20))
}

/// The encrypted file of what it should decrypt to.
pub fn encrypt(plain: &[u8], lock: Lock) -> Vec<u8> {
    let ((key, iv_key), salt) = (keys(lock), bytes(3, 20));
    let mut derived = [0; 32];
    let derived = match lock.by_aes {
        true => &mut derived[..16],
        false => &mut derived[..24],
    };
    pbkdf2::pbkdf2_hmac::<Sha1>(PASS.as_bytes(), &salt, lock.iterations, derived);
    let data = encrypted_blocks(plain, lock, 0);
    let key_bits = lock.key as u32 * 8;
    if lock.version == 1 {
        let wrap = |key: &[u8]| {
            let iv = bytes(4, 8);
            let mut inner = iv.clone();
            let plain = [&[0; 4], key].concat();
            inner.extend(chained::<TdesEde3>(derived, &iv, &plain, true));
            inner.reverse();
            let iv = [0x4a, 0xdd, 0xa2, 0x2c, 0x79, 0xe8, 0x21, 0x05];
            chained::<TdesEde3>(derived, &iv, &inner, true)
        };
        let (key, iv_key) = (wrap(&key), wrap(&iv_key));
        let mut footer = vec![0; 1276];
        let block = lock.block as u32;
        let numbers = [block, 17, 7, 6, 192, 8, 103, 0, lock.iterations, 20];
        put(&mut footer, 16, &words(&numbers));
        put(&mut footer, 56, &salt);
        put(&mut footer, 88, &words(&[16, 5, 0x8000_0001, key_bits]));
        put(&mut footer, 136, &words(&[key.len() as u32]));
        put(&mut footer, 140, &key);
        put(&mut footer, 396, &words(&[91, 160]));
        put(&mut footer, 436, &words(&[iv_key.len() as u32]));
        put(&mut footer, 440, &iv_key);
        put(&mut footer, 1256, &(plain.len() as u64).to_be_bytes());
        put(&mut footer, 1264, &words(&[1]));
        put(&mut footer, 1268, b"cdsaencr");
        return [data, footer].concat();
    }
    let (iv, keys) = (bytes(4, 8), [&key, &iv_key, &b"CKIE\0"[..]].concat());
    let (wrapped, method, bits) = match lock.by_aes {
        true => (
            chained::<Aes128>(derived, &iv, &keys, true),
            0x8000_0001,
            128,
        ),
        false => (chained::<TdesEde3>(derived, &iv, &keys, true), 17, 192),
    };
    let at = 8192;
    let mut file = vec![0; at];
    put(&mut file, 0, b"encrcdsa");
    put(
        &mut file,
        8,
        &words(&[2, 16, 5, 0x8000_0001, key_bits, 91, 160]),
    );
    put(&mut file, 52, &words(&[lock.block as u32]));
    put(&mut file, 56, &(plain.len() as u64).to_be_bytes());
    put(&mut file, 64, &(at as u64).to_be_bytes());
    // One for a certificate comes first.
    put(
        &mut file,
        72,
        &words(&[2, 2, 0, 200, 0, 564, 1, 0, 1000, 0, 616]),
    );
    let mut of_pass = vec![0; 616];
    put(&mut of_pass, 0, &words(&[103, 0, lock.iterations, 20]));
    put(&mut of_pass, 16, &salt);
    put(&mut of_pass, 48, &words(&[8]));
    put(&mut of_pass, 52, &iv);
    put(
        &mut of_pass,
        84,
        &words(&[bits, method, 7, 6, wrapped.len() as u32]),
    );
    put(&mut of_pass, 104, &wrapped);
    put(&mut file, 1000, &of_pass);
    file.extend(data);
    file
}
