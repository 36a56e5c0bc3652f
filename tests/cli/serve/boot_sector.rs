//! What the firmware of a PC boots: a sector that loads another one, which writes itself elsewhere, says a line on the
//! serial port and turns the machine off. Code of 16 bits, assembled by hand.

/// The sector that the first one loads: past the first megabytes, so that it is found by its number.
pub(super) const SECOND_AT: u16 = 40_961;
/// Where that one writes itself.
pub(super) const COPY_AT: u16 = 43_009;

/// Where the firmware loads the boot sector to.
const FIRST: u16 = 0x7c00;
/// Where that loads the other one to.
const SECOND: u16 = 0x8000;
/// Where in the boot sector there is what is asked of the firmware, and the number of a sector in that.
const PACKET: u16 = FIRST + 0x40;
const NUMBER: u16 = PACKET + 8;
/// Where in the boot sector the machine is turned off.
const OFF: u16 = FIRST + 0x20;
/// Where in the other one the line is.
const TEXT: u16 = SECOND + 0x40;

/// A sector with these bytes at these places.
fn sector(parts: &[(usize, &[u8])]) -> [u8; 512] {
    let mut sector = [0; 512];
    for (at, part) in parts {
        sector[*at..*at + part.len()].copy_from_slice(part);
    }
    sector
}

/// The boot sector; the firmware gives it the number of the drive in DL.
pub(super) fn first() -> [u8; 512] {
    let [packet, second, off] = [PACKET, SECOND, OFF].map(u16::to_le_bytes);
    let [low, high] = SECOND_AT.to_le_bytes();
    let code = [
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xfc, // cld
        0xbe, packet[0], packet[1], // mov si, PACKET
        0xb4, 0x42, // mov ah, 42h: read sectors by their number
        0xcd, 0x13, // int 13h: disks
        0x72, 0x05, // jc +5
        0xea, second[0], second[1], 0, 0, // jmp 0:SECOND
        0xea, off[0], off[1], 0, 0, // jmp 0:OFF
    ];
    let off = [
        0xba, 0x04, 0x06, // mov dx, 604h: the power management of QEMU's q35
        0xb8, 0x00, 0x20, // mov ax, 2000h: sleep, in the state S5
        0xef, // out dx, ax
        0xf4, // hlt
        0xeb, 0xfd, // jmp -3
    ];
    let packet = [
        0x10, 0, // the length of this
        1, 0, // sectors
        second[0], second[1], 0, 0, // the buffer, 0:SECOND
        low, high, 0, 0, 0, 0, 0, 0, // the first sector
    ];
    let place = |at: u16| usize::from(at - FIRST);
    sector(&[
        (0, &code),
        (place(OFF), &off),
        (place(PACKET), &packet),
        (510, &[0x55, 0xaa]),
    ])
}

/// The sector that it loads and goes on in.
pub(super) fn second() -> [u8; 512] {
    let [number, copy, text, off] = [NUMBER, COPY_AT, TEXT, OFF].map(u16::to_le_bytes);
    let code = [
        0xc7, 0x06, number[0], number[1], copy[0], copy[1], // mov word [NUMBER], COPY_AT
        0xb8, 0x00, 0x43, // mov ax, 4300h: write sectors by their number
        0xcd, 0x13, // int 13h: disks
        0x72, 0x10, // jc to the end
        0xbe, text[0], text[1], // mov si, TEXT
        0x31, 0xd2, // xor dx, dx: the first serial port
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz to the end
        0xb4, 0x01, // mov ah, 1: send
        0xcd, 0x14, // int 14h: serial ports
        0xeb, 0xf5, // jmp to lodsb
        0xea, off[0], off[1], 0, 0, // the end: jmp 0:OFF
    ];
    let place = usize::from(TEXT - SECOND);
    sector(&[(0, &code), (place, b"guest: booted\nguest: done\n\0")])
}
