"""A mount whose files may be offline: Lustre HSM, Spectrum Archive, Protect for Space Management, DMF, ScoutFS, custom.

`service` keeps the contract, `presets` says which commands a system has, `parsers` what their output means,
`residency` what is then known of a file, `commands` runs them, `recalls` remembers what was asked for.
"""
