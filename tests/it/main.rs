//! Tests from outside: the real binary over real sockets, and the rules of the house.

mod house;
