//! What the project runs on itself: test, bench, fuzz.
fn main() {}
