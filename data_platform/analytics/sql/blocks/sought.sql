-- What is staged from one day to another; that of other services or days between does no harm.
SELECT {key} AS key, {rest} AS rest FROM {twin} WHERE {only} AND day BETWEEN '{first}' AND '{last}'
