"""Sealed pairs: a run seals what it cannot open, and whoever has an identity opens it elsewhere.

`sealer` seals a pair for its recipients. `identities` reads what opens it, and `opener` refuses what belongs to another install.
`reader` reads pairs that may be sealed, and `open_pairs` keeps new ones open in memory until they are delivered. The format is that
of age (https://age-encryption.org/v1), by pyrage; it is imported only where pairs are sealed.
"""

__all__ = ["identities", "open_pairs", "opener", "reader", "sealer"]
