//! The server's step: requests, transactions, watches, and the properties that hold for any history of them.

mod driver;
mod histories;
mod model;
mod requests;
mod transactions;
