"""Accounting and economics: what a configuration costs, by arithmetic alone.

parameters, released_weights    how many numbers, how named and shaped, in which types
kv_cache                        what a generated token leaves behind
flops, steps, memory            work and memory of training and decoding; steps lists them one by one
info, info_table                all of that for one configuration, as data and as a table
tour                            one batch walked through the model, forward and backward
models                          other models beside DeepSeek-V3
cost, laptop, network           GPU hours and dollars, the reader's own machine, the limits of the wires
pipeline, pipeline_measured     1F1B, ZB1P, DualPipe and DualPipeV: simulated, and as they were executed
claim, claims, claims_*         every number of the papers that is arithmetic, recomputed
"""
