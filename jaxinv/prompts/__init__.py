"""Edits by text: StyleCLIP's three ways (Patashnik et al. 2021, arXiv:2103.17249).

search             a code moves by gradients until CLIP sees the text in its image (section 4)
mapper             a network moves any code for one text (section 5)
global_directions  style channels of a generator whose effect has the direction of the text in
                   CLIP's space (section 6)

What CLIP sees is in features, the spellings text:PROMPT and mapper:FILE of edits in sources.
"""
