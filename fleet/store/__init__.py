"""The service's database: tables, migrations, repositories by resource and the queries behind the pages."""
