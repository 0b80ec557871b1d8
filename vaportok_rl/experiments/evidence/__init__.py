"""The figures of VaporTok's supplement on a small world: taildrop, alignment, reconstructions, generated clips."""
