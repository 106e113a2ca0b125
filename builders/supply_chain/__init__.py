"""What lets others trust a version: keys, signatures over its folder, signed attestations, a bill of materials."""
