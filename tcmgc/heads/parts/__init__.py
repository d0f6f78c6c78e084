"""Parts that several heads share: attention, its collapsed form, reorganisation, aggregation."""
