//! qcow2 beyond what every format promises.

mod amend;
mod audit;
mod bitmap;
mod check;
mod crash;
mod create;
mod crypt;
mod damage;
mod info;
mod lazy;
mod model;
mod repair;
mod resize;
mod snapshot;
mod steps;
mod threads;
