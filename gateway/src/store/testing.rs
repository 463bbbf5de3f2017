//! What tests of the gateway share: a store in a temporary folder.
