//! Block cipher modes over whole sectors: XTS, CBC, CTR and ECB. The cipher is a type parameter, so the block loops are
//! compiled for each one.

use aes::cipher::array::Array;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, consts::U16};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit};

use crate::crypto::SECTOR;
use crate::crypto::ivgen::IvSource;

/// Encrypts and decrypts whole sectors in place.
pub(super) trait SectorMode: Send + Sync {
    fn encrypt(&self, data: &mut [u8], sector: u64);
    fn decrypt(&self, data: &mut [u8], sector: u64);
}

/// XTS (IEEE 1619) with one tweak per sector. The 32 blocks of a sector are passed to the cipher at once, which keeps
/// the processor's AES units busy.
pub(super) struct Xts<C> {
    pub(super) data: C,
    pub(super) tweak: C,
    pub(super) iv: IvSource,
}

const BLOCKS: usize = SECTOR / 16;

impl<C> Xts<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    fn tweaks(&self, sector: u64) -> [u128; BLOCKS] {
        let mut first = Array::<u8, U16>::default();
        self.iv.fill(sector, &mut first);
        self.tweak.encrypt_block(&mut first);
        let mut tweak = u128::from_le_bytes(first.into());
        let mut all = [0; BLOCKS];
        for slot in &mut all {
            *slot = tweak;
            // Multiply by x in GF(2^128) modulo x^128 + x^7 + x^2 + x + 1.
            tweak = (tweak << 1) ^ (0x87 & (tweak >> 127).wrapping_neg());
        }
        all
    }

    fn run(&self, data: &mut [u8], mut sector: u64, cipher: impl Fn(&mut [Array<u8, U16>])) {
        for unit in data.chunks_exact_mut(SECTOR) {
            let tweaks = self.tweaks(sector);
            let (blocks, _) = Array::<u8, U16>::slice_as_chunks_mut(unit);
            whiten(blocks, &tweaks);
            cipher(blocks);
            whiten(blocks, &tweaks);
            sector = sector.wrapping_add(1);
        }
    }
}

fn whiten(blocks: &mut [Array<u8, U16>], tweaks: &[u128; BLOCKS]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        let mixed = u128::from_le_bytes((*block).into()) ^ tweak;
        *block = mixed.to_le_bytes().into();
    }
}

impl<C> SectorMode for Xts<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn encrypt(&self, data: &mut [u8], sector: u64) {
        self.run(data, sector, |blocks| self.data.encrypt_blocks(blocks));
    }

    fn decrypt(&self, data: &mut [u8], sector: u64) {
        self.run(data, sector, |blocks| self.data.decrypt_blocks(blocks));
    }
}

/// CBC, chained within each sector.
pub(super) struct Cbc<C> {
    pub(super) cipher: C,
    pub(super) iv: IvSource,
}

impl<C> SectorMode for Cbc<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + Clone + Send + Sync,
{
    fn encrypt(&self, data: &mut [u8], mut sector: u64) {
        for unit in data.chunks_exact_mut(SECTOR) {
            let mut iv = Array::<u8, C::BlockSize>::default();
            self.iv.fill(sector, &mut iv);
            let mut mode = cbc::Encryptor::inner_iv_init(self.cipher.clone(), &iv);
            let (blocks, _) = Array::slice_as_chunks_mut(unit);
            mode.encrypt_blocks(blocks);
            sector = sector.wrapping_add(1);
        }
    }

    fn decrypt(&self, data: &mut [u8], mut sector: u64) {
        for unit in data.chunks_exact_mut(SECTOR) {
            let mut iv = Array::<u8, C::BlockSize>::default();
            self.iv.fill(sector, &mut iv);
            let mut mode = cbc::Decryptor::inner_iv_init(self.cipher.clone(), &iv);
            let (blocks, _) = Array::slice_as_chunks_mut(unit);
            mode.decrypt_blocks(blocks);
            sector = sector.wrapping_add(1);
        }
    }
}

/// CTR with a big-endian counter over the whole block, starting at the sector's IV.
pub(super) struct Ctr<C> {
    pub(super) cipher: C,
    pub(super) iv: IvSource,
}

impl<C: BlockCipherEncrypt + Send + Sync> SectorMode for Ctr<C> {
    fn encrypt(&self, data: &mut [u8], mut sector: u64) {
        for unit in data.chunks_exact_mut(SECTOR) {
            let mut counter = Array::<u8, C::BlockSize>::default();
            self.iv.fill(sector, &mut counter);
            let (blocks, _) = Array::<u8, C::BlockSize>::slice_as_chunks_mut(unit);
            for block in blocks {
                let mut pad = counter.clone();
                self.cipher.encrypt_block(&mut pad);
                block.iter_mut().zip(&pad).for_each(|(b, p)| *b ^= p);
                increment(&mut counter);
            }
            sector = sector.wrapping_add(1);
        }
    }

    fn decrypt(&self, data: &mut [u8], sector: u64) {
        self.encrypt(data, sector);
    }
}

/// Adds one to a big-endian number.
fn increment(counter: &mut [u8]) {
    for byte in counter.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

/// ECB: without an IV; for reading old images.
pub(super) struct Ecb<C>(pub(super) C);

impl<C> SectorMode for Ecb<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync,
{
    fn encrypt(&self, data: &mut [u8], _sector: u64) {
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        self.0.encrypt_blocks(blocks);
    }

    fn decrypt(&self, data: &mut [u8], _sector: u64) {
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        self.0.decrypt_blocks(blocks);
    }
}
