//! What the two daemons share around their own work: configuration, logging, signals, HTTP and metrics pages.
