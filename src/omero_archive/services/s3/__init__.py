"""S3 and S3 Glacier: any endpoint that speaks S3, with or without storage classes that must be restored.

`service.py` keeps the contract and `settings.py` says what can be set; `connection.py` asks and says what an answer
or its absence means, `objects.py` reads answers. `names.py` maps keys to object names, `checksums.py` and
`residency.py` say what S3's checksums and restore headers mean; `writing.py`, `reading.py` and `checking.py` do.
"""
