"""Ray Data's part: reading a corpus and decoding its videos."""
