MAGIC: bytes
DIGEST_SIZE: int
