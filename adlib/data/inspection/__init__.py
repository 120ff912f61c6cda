"""Looking at a data set: is it the published one (verify), and what does it look like (describe)?"""
