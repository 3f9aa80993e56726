"""Sealed pairs: a run seals what it cannot open, and whoever has an identity opens it elsewhere.

`sealer` seals a pair for its recipients. `identities` reads what opens it, and `opener` opens it, but not for another
install. `kept_pairs` keeps new pairs open in memory until they are delivered.

The format is that of age (https://age-encryption.org/v1). The library for it is pyrage, which is imported only where pairs
are sealed or opened.
"""

__all__ = ["identities", "kept_pairs", "opener", "sealer"]
